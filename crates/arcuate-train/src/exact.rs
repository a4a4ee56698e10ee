//! Numbers in JSON that read back to the same bits.
//!
//! The usual reader of JSON numbers may be off by the last bit, and JSON has no infinities. Resuming bit for bit must not
//! depend on either, so these numbers are written as text, in the fewest digits that give the same number.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number written as text. Plain numbers are read too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exact(pub(crate) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `{:?}` keeps small and large numbers short (`5e-324`); both forms read back exactly.
        serializer.serialize_str(&format!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => {
                let number = text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a number")))?;
                Some(Self(number))
            }
            serde_json::Value::Number(number) => number.as_f64().map(Self),
            _ => None,
        }
        .ok_or_else(|| D::Error::custom("expected a number"))
    }
}

/// For `#[serde(with = "exact::one")]`.
pub(crate) mod one {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Exact(*value).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Exact::deserialize(deserializer).map(|exact| exact.0)
    }
}

/// For `#[serde(with = "exact::list")]`.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().copied().map(Exact))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Exact>::deserialize(deserializer)?.into_iter().map(|exact| exact.0).collect())
    }
}

/// For `#[serde(with = "exact::map")]`.
pub(crate) mod map {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(map: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, value)| (name, Exact(*value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let map = BTreeMap::<String, Exact>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(name, exact)| (name, exact.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_json(value: f64) -> f64 {
        let text = serde_json::to_string(&Exact(value)).expect("text is plain data");
        serde_json::from_str::<Exact>(&text).expect("what was written reads back").0
    }

    #[test]
    fn unusual_numbers_read_back_to_the_same_bits() {
        for value in [0.1 + 0.2, -0.0, 5e-324, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(through_json(value).to_bits(), value.to_bits(), "{value}");
        }
        assert!(through_json(f64::NAN).is_nan());
    }

    #[test]
    fn many_numbers_read_back_to_the_same_bits() {
        // An odd multiplier walks through the mantissas.
        for i in 0..5000_u64 {
            let bits = (0x3fa + i % 9) << 52 | i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12;
            assert_eq!(through_json(f64::from_bits(bits)).to_bits(), bits);
        }
    }

    #[test]
    fn plain_numbers_are_read_and_words_refused() {
        assert_eq!(serde_json::from_str::<Exact>("1.5").expect("a number"), Exact(1.5));
        for wrong in ["\"much\"", "\"\"", "null", "[]", "true"] {
            assert!(serde_json::from_str::<Exact>(wrong).is_err(), "{wrong}");
        }
    }
}
