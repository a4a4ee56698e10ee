//! The query of an address: names with values, percent-encoded.

use std::fmt::Write as _;

/// More than this would be no form of ours.
const MAX_PAIRS: usize = 1000;

/// Names with values, in order; a name may stand there several times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`; `None` if it is not UTF-8, badly encoded or endless.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = text.split('&').filter(|part| !part.is_empty());
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name)?, decode(value)?))
        };
        let pairs: Vec<(String, String)> = parts.take(MAX_PAIRS + 1).map(pair).collect::<Option<_>>()?;
        (pairs.len() <= MAX_PAIRS).then_some(Self(pairs))
    }

    /// The first value of a name; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// An address of ours: a path with names and values. The result holds nothing that HTML would take for markup but `&`.
pub(crate) fn link(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = path.to_owned();
    for (number, (name, value)) in pairs.iter().enumerate() {
        text.push(if number == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => text.push(char::from(byte)),
                other => drop(write!(text, "%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_holds_is_read_back() {
        let value = "a b&c=d/é<\"'%+\u{1}";
        let address = link("/run", &[("name", value), ("x", "")]);
        assert!(!address.contains(['<', '"', '\'', ' ']), "{address}");
        let query = Query::parse(address.split_once('?').expect("has a query").1).expect("is sound");
        assert_eq!((query.get("name"), query.get("x"), query.get("y")), (value, "", ""));
    }

    #[test]
    fn a_name_may_stand_there_several_times() {
        let query = Query::parse("run=a&run=b%2Fc&&q=x+y").expect("is sound");
        assert_eq!(query.all("run").collect::<Vec<_>>(), ["a", "b/c"]);
        assert_eq!(query.get("q"), "x y");
    }

    #[test]
    fn bad_encodings_are_refused() {
        for text in ["a=%", "a=%4", "a=%zz", "a=%ff", "%c3=1"] {
            assert_eq!(Query::parse(text), None, "{text}");
        }
        assert_eq!(Query::parse(&"a&".repeat(MAX_PAIRS + 1)), None);
    }
}
