//! JSON Schemas of settings that are written in another form than their Rust type.
//!
//! Only tests use the schemas. The title of a schema names the form in `docs/CONFIGURATION.md`.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Returns the schema of a duration with a unit, like `30s` or `2m`.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "title": "duration" })
}

/// Returns the schema of a size: a number of bytes, or a number with a unit, like `64KiB`.
pub fn size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"], "title": "size" })
}

/// Returns the schema of a text that may be written as a number.
pub fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"], "title": "text" })
}

/// Returns the schema of the path of a file.
pub fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "title": "path" })
}

/// Returns the schema of a list of networks in CIDR notation, or single addresses.
pub fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string" }, "title": "list of networks" })
}

/// Returns the schema of a secret text.
pub fn secret(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "integer"], "title": "secret" })
}

/// Returns the schema of an `http` or `https` URL.
pub fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "uri", "title": "URL" })
}

/// Returns the schema of a regular expression in the syntax of the `regex` crate.
pub fn pattern(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "title": "regular expression" })
}

/// Returns the schema of a table of secret texts.
pub fn secrets(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string" }, "title": "table of secrets" })
}

/// Returns the schema of a table of paths.
pub fn paths(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "type": "string" }, "title": "table of paths" })
}
