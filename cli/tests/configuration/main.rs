//! Keeps `docs/CONFIGURATION.md` and `docs/configuration.schema.json` equal to the configuration types.
//!
//! `make docs` writes both files. Otherwise the test compares them.

mod fields;
mod page;

use std::fs;
use std::path::PathBuf;

use carillon::config::Config;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The variable that makes the test write the files.
const WRITE: &str = "WRITE_DOCS";

/// Returns the JSON Schema of the configuration. All types are inlined.
fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    simplify(&mut schema);
    schema
}

/// Joins the lines of descriptions, and removes defaults that repeat other defaults or mask a secret.
fn simplify(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    if let Some(Value::String(description)) = object.get_mut("description") {
        let paragraphs: Vec<String> = description.split("\n\n").map(|text| text.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    let is_noise = |default: &Value| default.is_object() || default == "***" || default.as_str() == Some("");
    if object.get("default").is_some_and(is_noise) {
        object.remove("default");
    }
    object.remove("format");
    for key in ["items", "additionalProperties"] {
        if let Some(below) = object.get_mut(key) {
            simplify(below);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn check(name: &str, expected: &str) {
    let path = docs(name);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, expected).expect("the documentation can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(found == expected, "docs/{name} differs from the configuration types at line {line:?}: run `make docs`");
}

#[test]
fn the_documentation_matches_the_configuration_types() {
    let schema = schema();
    let template = fs::read_to_string(docs("CONFIGURATION.in.md")).expect("the template is there");
    let json = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    check("configuration.schema.json", &format!("{json}\n"));
    check("CONFIGURATION.md", &page::render(&template, &schema));
}

#[test]
fn every_setting_has_a_description() {
    for setting in page::settings(&schema()) {
        assert!(!setting.description.is_empty(), "{} has no doc comment", setting.key);
    }
}
