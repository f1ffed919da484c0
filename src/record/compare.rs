//! Two records, field by field.

use serde::Serialize;
use serde_json::Value;

/// A field that is not the same in two records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{field}: recorded {recorded}, now {now}")]
pub struct Difference {
    /// Path of the field: `slots[2].z`.
    pub field: String,
    /// What the record says.
    pub recorded: String,
    /// What came out now.
    pub now: String,
}

/// Every field in which two records differ. Numbers are written so that different bits are different texts.
pub(super) fn differences<T: Serialize>(recorded: &T, now: &T) -> Vec<Difference> {
    let json = |record: &T| serde_json::to_value(record).ok();
    let mut found = Vec::new();
    compare(String::new(), json(recorded).as_ref(), json(now).as_ref(), &mut found);
    found
}

fn compare(path: String, recorded: Option<&Value>, now: Option<&Value>, found: &mut Vec<Difference>) {
    match (recorded, now) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(path, a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                compare(format!("{path}[{index}]"), a.get(index), b.get(index), found);
            }
        }
        _ => {
            let text = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            let (recorded, now) = (text(recorded), text(now));
            if recorded != now {
                found.push(Difference { field: path, recorded, now });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_that_differs_is_named() {
        let recorded =
            json!({"a": 1.5, "list": [{"z": 0.1}, {"z": 0.3}, 7], "same": [true, null], "gone": 1});
        let now = json!({"a": 1.5, "list": [{"z": 0.1}, {"z": 0.1 + 0.2}], "same": [true, null], "b": 0.0});
        let found: Vec<String> = differences(&recorded, &now).iter().map(ToString::to_string).collect();
        let expected = [
            "gone: recorded 1, now nothing",
            "list[1].z: recorded 0.3, now 0.30000000000000004",
            "list[2]: recorded 7, now nothing",
            "b: recorded nothing, now 0.0",
        ];
        assert_eq!(found, expected);
        assert!(differences(&recorded, &recorded).is_empty());
        assert_eq!(differences(&json!(0.0), &json!(-0.0)).len(), 1);
    }
}
