//! Serializes the document in reading order; `serde_json` would sort members by name.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use crate::routes::ROUTES;

/// The members that come first in any object; the others follow, by name.
const FIRST: &[&str] = &[
    "openapi",
    "info",
    "jsonSchemaDialect",
    "servers",
    "security",
    "tags",
    "paths",
    "components",
    "operationId",
    "title",
    "summary",
    "name",
    "in",
    "url",
    "$ref",
    "type",
    "format",
    "description",
    "required",
    "parameters",
    "requestBody",
    "responses",
    "headers",
    "content",
    "schema",
    "get",
    "post",
    "patch",
    "delete",
    "properties",
    "additionalProperties",
];

/// Returns the document as indented JSON.
pub fn pretty(document: &Value) -> String {
    let text = serde_json::to_string_pretty(&Ordered { value: document, first: &[] }).expect("a value is JSON");
    text + "\n"
}

struct Ordered<'a> {
    value: &'a Value,
    /// Members that come before all others.
    first: &'a [Value],
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(members) => {
                let rank = |name: &String| {
                    let required = self.first.iter().position(|first| first == name);
                    let route = ROUTES.iter().position(|route| route.path.replace("{*", "{") == *name);
                    let keyword = FIRST.iter().position(|first| first == name).filter(|_| self.first.is_empty());
                    required.or(route).or(keyword).unwrap_or(usize::MAX)
                };
                let mut members: Vec<(&String, &Value)> = members.iter().collect();
                members.sort_by_key(|(name, _)| rank(name));
                let required = self.value["required"].as_array().map(Vec::as_slice).unwrap_or_default();
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    let first = if name == "properties" || name == "examples" { required } else { &[] };
                    map.serialize_entry(name, &Ordered { value, first })?;
                }
                map.end()
            }
            Value::Array(members) => {
                serializer.collect_seq(members.iter().map(|value| Ordered { value, first: self.first }))
            }
            value => value.serialize(serializer),
        }
    }
}
