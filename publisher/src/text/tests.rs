use serde_json::value::RawValue;

use super::data_of;

#[track_caller]
fn check(value: &str, expected: &str) {
    let value: &RawValue = serde_json::from_str(value).unwrap();
    assert_eq!(data_of(value).unwrap(), expected);
}

#[test]
fn the_content_of_a_string_is_unchanged() {
    check(r#""{\"some\" : \"data\"}""#, r#"{"some" : "data"}"#);
    check(r#""plain""#, "plain");
    check(r#""""#, "");
    check(r#""\u00eb\/\n""#, "ë/\n");
}

#[test]
fn other_values_become_compact_json() {
    check(r#"{ "b" : [ 1 , 2.50, 1e3 ],"a":{ } }"#, r#"{"b":[1,2.50,1e3],"a":{}}"#);
    check("{\n\t\"x\" :\r\n true }", r#"{"x":true}"#);
    check("12345678901234567890123", "12345678901234567890123");
    check("[]", "[]");
}

#[test]
fn white_space_inside_strings_is_preserved() {
    check(r#"{ "a b" : "c \" d \\" , "e" : "\\\" " }"#, r#"{"a b":"c \" d \\","e":"\\\" "}"#);
}

#[test]
fn half_a_surrogate_pair_is_refused() {
    let value: &RawValue = serde_json::from_str(r#""\ud800""#).unwrap();
    assert!(data_of(value).is_err());
}
