//! JSON as Whisper writes it: `text`, `language`, `segments` with `words`; times in seconds, to the millisecond.

use serde_json::{Map, Value, json};

use super::{Transcript, milliseconds};

pub(super) fn write(transcript: &Transcript) -> String {
    let seconds = |seconds: f64| milliseconds(seconds) as f64 / 1000.0;
    let optional = |object: &mut Map<String, Value>, key: &str, value: Option<Value>| {
        object.extend(value.map(|value| (key.to_owned(), value)));
    };
    let mut segments = Vec::with_capacity(transcript.segments.len());
    for (id, segment) in transcript.segments.iter().enumerate() {
        let mut object = Map::new();
        object.insert("id".to_owned(), id.into());
        object.insert("start".to_owned(), seconds(segment.start_seconds).into());
        object.insert("end".to_owned(), seconds(segment.end_seconds).into());
        object.insert("text".to_owned(), segment.text.clone().into());
        optional(&mut object, "speaker", segment.speaker.clone().map(Value::from));
        optional(&mut object, "confidence", segment.confidence.map(Value::from));
        let words = segment.words.iter().map(|word| {
            let mut object = Map::new();
            object.insert("word".to_owned(), word.text.clone().into());
            object.insert("start".to_owned(), seconds(word.start_seconds).into());
            object.insert("end".to_owned(), seconds(word.end_seconds).into());
            optional(&mut object, "probability", word.confidence.map(Value::from));
            Value::Object(object)
        });
        object.insert("words".to_owned(), words.collect());
        segments.push(Value::Object(object));
    }
    let text = transcript.segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ");
    let mut object = Map::new();
    object.insert("audio".to_owned(), transcript.audio.clone().into());
    object.insert("duration".to_owned(), seconds(transcript.duration_seconds).into());
    optional(&mut object, "language", transcript.language.clone().map(Value::from));
    object.insert("text".to_owned(), text.into());
    object.insert("segments".to_owned(), segments.into());
    format!("{:#}\n", json!(object))
}
