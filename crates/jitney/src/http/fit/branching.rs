//! Finds schemas that are costly to check: alternatives of which several lead back to themselves.
//!
//! An expression is a sum or a product, and each of these holds expressions: a value that is neither is looked at as
//! both, on every level, so that the work doubles with each. The validator remembers what it has seen, and errors are
//! searched within bounds; but the schema's owner should know, and can give each alternative a `const` to tell it by.

use std::collections::HashSet;

use serde_json::Value;

/// Steps of the search at most. A schema that is larger is not looked through.
const STEPS_MAX: usize = 200_000;

/// Keywords with alternatives or parts for one value.
const BRANCHES: [&str; 3] = ["anyOf", "oneOf", "allOf"];

/// Keywords whose value is no part of what the schema asks for where it stands.
const ASIDE: [&str; 6] = ["$defs", "definitions", "const", "enum", "default", "examples"];

/// Where such alternatives stand, as a JSON pointer.
pub(super) fn place(schema: &Value) -> Option<String> {
    let mut steps = STEPS_MAX;
    let mut left = vec![(schema, String::new())];
    while let Some((part, pointer)) = left.pop() {
        for keyword in BRANCHES {
            let branches = part.get(keyword).and_then(Value::as_array);
            let back = branches
                .into_iter()
                .flatten()
                .filter(|branch| leads_to(schema, branch, part, &mut steps));
            if back.take(2).count() == 2 {
                return Some(format!("{pointer}/{keyword}"));
            }
        }
        steps = steps.checked_sub(1)?;
        match part {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    left.push((inner, format!("{pointer}/{}", escaped(name))));
                }
            }
            Value::Array(items) => {
                for (at, inner) in items.iter().enumerate() {
                    left.push((inner, format!("{pointer}/{at}")));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether a part is reached from another.
fn leads_to(root: &Value, from: &Value, to: &Value, steps: &mut usize) -> bool {
    let mut seen: HashSet<*const Value> = HashSet::new();
    let mut left = vec![from];
    while let Some(part) = left.pop() {
        if std::ptr::eq(part, to) {
            return true;
        }
        if *steps == 0 || !seen.insert(part) {
            continue;
        }
        *steps -= 1;
        match part {
            Value::Object(fields) => {
                left.extend(target(root, part));
                let asked = fields.iter().filter(|(name, _)| !ASIDE.contains(&name.as_str()));
                left.extend(asked.map(|(_, inner)| inner));
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    false
}

/// What a reference within the schema leads to.
fn target<'a>(root: &'a Value, part: &Value) -> Option<&'a Value> {
    let reference = ["$ref", "$dynamicRef", "$recursiveRef"]
        .iter()
        .find_map(|name| part.get(name)?.as_str())?;
    root.pointer(reference.strip_prefix('#')?)
}

/// A name as a JSON pointer has it.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn alternatives_that_lead_back_are_found() {
        let sum =
            json!({"type": "object", "properties": {"l": {"$ref": "#/$defs/e"}, "r": {"$ref": "#/$defs/e"}}});
        let one = json!({"$defs": {"e": {"anyOf": [sum, {"type": "number"}]}}, "$ref": "#/$defs/e"});
        assert_eq!(place(&one), None);
        let two = json!({"$defs": {"e": {"anyOf": [sum, {"properties": {"of": {"$ref": "#/$defs/e"}}}]}},
                         "properties": {"e": {"$ref": "#/$defs/e"}}});
        assert_eq!(place(&two).as_deref(), Some("/$defs/e/anyOf"));
        let whole = json!({"oneOf": [{"items": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}}]});
        assert_eq!(place(&whole).as_deref(), Some("/oneOf"));
        let tree = json!({"properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}});
        assert_eq!(place(&tree), None);
        let data = json!({"anyOf": [{"const": {"$ref": "#"}}, {"enum": [{"$ref": "#"}]}]});
        assert_eq!(place(&data), None);
    }
}
