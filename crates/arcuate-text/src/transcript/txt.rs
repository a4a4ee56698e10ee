//! Plain text: one segment a line, after the name of the speaker where there is one.

use super::Transcript;

pub(super) fn write(transcript: &Transcript) -> String {
    let mut text = String::new();
    for segment in &transcript.segments {
        if let Some(speaker) = &segment.speaker {
            text.push_str(&format!("{speaker}: "));
        }
        text.push_str(&segment.text);
        text.push('\n');
    }
    text
}
