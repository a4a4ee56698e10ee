//! ELAN annotation files (`eaf`), format 3.0: a tier for each speaker, one more for the words.
//!
//! # Reference
//! The EAF 3.0 schema of the Max Planck Institute for Psycholinguistics

use std::collections::HashMap;
use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};

use super::{Segment, Tier, Transcript, check_size, milliseconds, one_line};
use crate::{Error, Result};

/// More elements than any annotation has.
const MAX_NODES: u32 = 20_000_000;
/// Annotations that refer to others do so over fewer levels.
const MAX_LEVELS: usize = 64;
/// The schema wants a date; a fixed one gives the same file each time.
const DATE: &str = "1970-01-01T00:00:00Z";

pub(super) fn write(transcript: &Transcript) -> String {
    let tiers = transcript.tiers();
    let spans = || tiers.iter().flat_map(|(_, spans)| spans);
    let mut times: Vec<u64> = spans().flat_map(|span| [milliseconds(span.start), milliseconds(span.end)]).collect();
    times.sort_unstable();
    times.dedup();
    let slot = |seconds: f64| times.binary_search(&milliseconds(seconds)).map_or(0, |place| place + 1);
    let name = escape(&uri(&transcript.audio));
    let media = if transcript.audio.starts_with('/') { format!("file://{name}") } else { format!("./{name}") };
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ANNOTATION_DOCUMENT AUTHOR=\"\" DATE=\"{DATE}\" FORMAT=\"3.0\" VERSION=\"3.0\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:noNamespaceSchemaLocation=\"http://www.mpi.nl/tools/elan/EAFv3.0.xsd\">\n\
         <HEADER MEDIA_FILE=\"\" TIME_UNITS=\"milliseconds\">\n\
         <MEDIA_DESCRIPTOR MEDIA_URL=\"{media}\" MIME_TYPE=\"{}\"{}/>\n\
         <PROPERTY NAME=\"lastUsedAnnotationId\">{}</PROPERTY>\n</HEADER>\n<TIME_ORDER>\n",
        mime(&transcript.audio),
        if transcript.audio.starts_with('/') { String::new() } else { format!(" RELATIVE_MEDIA_URL=\"{media}\"") },
        spans().count()
    );
    for (number, time) in times.iter().enumerate() {
        let _ = writeln!(xml, "<TIME_SLOT TIME_SLOT_ID=\"ts{}\" TIME_VALUE=\"{time}\"/>", number + 1);
    }
    xml.push_str("</TIME_ORDER>\n");
    let mut number = 0;
    for (name, spans) in &tiers {
        let _ = writeln!(xml, "<TIER LINGUISTIC_TYPE_REF=\"speech\" TIER_ID=\"{}\">", escape(name));
        for span in spans {
            number += 1;
            let _ = writeln!(
                xml,
                "<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID=\"a{number}\" TIME_SLOT_REF1=\"ts{}\" TIME_SLOT_REF2=\"ts{}\">\
                 <ANNOTATION_VALUE>{}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>",
                slot(span.start),
                slot(span.end),
                escape(span.text)
            );
        }
        xml.push_str("</TIER>\n");
    }
    xml.push_str(
        "<LINGUISTIC_TYPE GRAPHIC_REFERENCES=\"false\" LINGUISTIC_TYPE_ID=\"speech\" TIME_ALIGNABLE=\"true\"/>\n\
         </ANNOTATION_DOCUMENT>\n",
    );
    xml
}

/// Text for elements and attributes; characters that XML may not hold are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() && !c.is_whitespace() || matches!(c, '\u{b}' | '\u{c}' | '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// A path as a part of an address.
fn uri(path: &str) -> String {
    let mut address = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                address.push(char::from(byte))
            }
            _ => {
                let _ = write!(address, "%{byte:02X}");
            }
        }
    }
    address
}

fn mime(audio: &str) -> &'static str {
    let ending = audio.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "mp3" => "audio/mpeg",
        "flac" => "audio/flac",
        "ogg" | "opus" | "oga" => "audio/ogg",
        "m4a" | "aac" | "mp4" => "audio/mp4",
        _ => "audio/x-wav",
    }
}

/// The tiers of an ELAN file. Annotations that refer to others have the times of those; times that the file leaves open lie evenly
/// between their neighbours; the participant of a tier is the speaker.
///
/// # Errors
/// Anything that is no ELAN file, with its line; document type definitions are refused.
pub fn read_eaf(bytes: &[u8]) -> Result<Vec<Tier>> {
    check_size("eaf", bytes)?;
    let failed = |line: usize, message: String| Error::Transcript { format: "eaf", line, message };
    let text = std::str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
        .map_err(|error| failed(1, format!("it is not UTF-8 at byte {}", error.valid_up_to())))?;
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| failed(error.pos().row as usize, format!("it is no usable XML: {error}")))?;
    let lines = Lines::new(text);
    let refuse = |node: Node<'_, '_>, message: String| failed(lines.of(node), message);
    let root = document.root_element();
    if !root.has_tag_name("ANNOTATION_DOCUMENT") {
        return Err(refuse(root, format!("`ANNOTATION_DOCUMENT` was expected, not `{}`", root.tag_name().name())));
    }
    let attribute = |node: Node<'_, '_>, name: &str| {
        let value = node.attribute(name).map(str::to_owned);
        value.ok_or_else(|| refuse(node, format!("`{}` has no `{name}`", node.tag_name().name())))
    };
    let mut slots = Vec::new();
    for node in root.descendants().filter(|node| node.has_tag_name("TIME_SLOT")) {
        let time = node.attribute("TIME_VALUE").map(str::parse::<u32>).transpose();
        let time = time.map_err(|_| refuse(node, "`TIME_VALUE` is no number of milliseconds".to_owned()))?;
        slots.push((attribute(node, "TIME_SLOT_ID")?, time.map(f64::from)));
    }
    let times = between_neighbours(&slots);
    let tiers = || root.children().filter(|node| node.has_tag_name("TIER"));
    // Times, or the annotation that has them.
    let mut places: HashMap<String, std::result::Result<(f64, f64), String>> = HashMap::new();
    for tier in tiers() {
        for node in annotations(tier) {
            let place = if node.has_tag_name("REF_ANNOTATION") {
                Err(attribute(node, "ANNOTATION_REF")?)
            } else {
                let time = |name: &str| {
                    let slot = attribute(node, name)?;
                    times
                        .get(slot.as_str())
                        .copied()
                        .ok_or_else(|| refuse(node, format!("there is no time slot `{slot}`")))
                };
                Ok((time("TIME_SLOT_REF1")?, time("TIME_SLOT_REF2")?))
            };
            places.insert(attribute(node, "ANNOTATION_ID")?, place);
        }
    }
    let mut read = Vec::new();
    for tier in tiers() {
        let speaker = tier.attribute("PARTICIPANT").map(one_line).filter(|name| !name.is_empty());
        let mut segments = Vec::new();
        for node in annotations(tier) {
            let mut id = &attribute(node, "ANNOTATION_ID")?;
            let mut found = None;
            for _ in 0..MAX_LEVELS {
                match places.get(id) {
                    Some(Ok(place)) => found = Some(*place),
                    Some(Err(other)) => {
                        id = other;
                        continue;
                    }
                    None => {}
                }
                break;
            }
            let (start, end) =
                found.ok_or_else(|| refuse(node, "the annotation that it refers to has no times".to_owned()))?;
            if end < start {
                return Err(refuse(node, format!("it ends at {end} ms, before its start at {start} ms")));
            }
            let value = node.children().find(|child| child.has_tag_name("ANNOTATION_VALUE"));
            let parts = value.into_iter().flat_map(|value| value.descendants()).filter(Node::is_text);
            let text = one_line(&parts.filter_map(|part| part.text()).collect::<String>());
            if !text.is_empty() {
                let (start_seconds, end_seconds) = (start / 1000.0, end / 1000.0);
                segments.push(Segment {
                    start_seconds,
                    end_seconds,
                    text,
                    speaker: speaker.clone(),
                    ..Segment::default()
                });
            }
        }
        segments.sort_by(|a, b| a.start_seconds.total_cmp(&b.start_seconds));
        read.push(Tier { name: attribute(tier, "TIER_ID")?, segments });
    }
    Ok(read)
}

fn annotations<'a, 'input>(tier: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    tier.descendants().filter(|node| node.has_tag_name("ALIGNABLE_ANNOTATION") || node.has_tag_name("REF_ANNOTATION"))
}

/// Milliseconds of each slot. Open ones lie evenly between those before and after them; at the ends they are equal to the nearest.
fn between_neighbours(slots: &[(String, Option<f64>)]) -> HashMap<&str, f64> {
    let mut times = HashMap::new();
    let mut before = 0.0;
    let mut at = 0;
    while at < slots.len() {
        let open = slots[at..].iter().take_while(|(_, time)| time.is_none()).count();
        let after = slots.get(at + open).and_then(|(_, time)| *time).unwrap_or(before);
        for (step, (id, _)) in slots[at..at + open].iter().enumerate() {
            times.insert(id.as_str(), before + (after - before) * (step + 1) as f64 / (open + 1) as f64);
        }
        if let Some((id, Some(time))) = slots.get(at + open) {
            times.insert(id.as_str(), *time);
            before = *time;
        }
        at += open + 1;
    }
    times
}

/// Lines of places, found without going through the whole text for each.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    fn of(&self, node: Node<'_, '_>) -> usize {
        self.0.partition_point(|end| *end < node.range().start) + 1
    }
}
