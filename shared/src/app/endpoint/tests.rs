use serde_json::json;

use super::*;

fn endpoint(value: serde_json::Value) -> Endpoint {
    serde_json::from_value(value).unwrap()
}

fn labels_of(endpoints: &[Endpoint]) -> Vec<String> {
    Endpoint::labelled(endpoints).into_iter().map(|(label, _)| label.to_string()).collect()
}

#[test]
fn a_label_depends_on_the_whole_url_and_hides_its_secrets() {
    let urls = [
        "https://example.org/a?token=x",
        "https://example.org/a?token=y",
        "https://example.org/a",
        "https://example.org/b",
        "http://example.org/a",
        "https://user:pass@example.org/a",
        "https://user:pass@example.org/a?token=x",
    ];
    let endpoints: Vec<Endpoint> = urls.iter().map(|url| endpoint(json!({ "url": url }))).collect();
    let labels = labels_of(&endpoints);
    for (number, label) in labels.iter().enumerate() {
        assert!(label.starts_with("example.org:"), "{label}");
        assert!(!label.contains("token") && !label.contains("pass"), "{label}");
        assert_eq!(labels.iter().filter(|other| *other == label).count(), 1, "{label} of {}", urls[number]);
    }
    // The label does not depend on the other endpoints in the list.
    for number in 0..endpoints.len() {
        assert_eq!(labels_of(&endpoints[number..])[0], labels[number]);
    }
    assert_eq!(labels[2], "example.org:443-1ced2904", "labels are the same in every release");
    assert_eq!(labels[0], "example.org:443-16d82822", "labels are the same in every release");
    assert!(Endpoint::check_labels(&endpoints).is_empty());
}

#[test]
fn a_configured_label_has_precedence_and_endpoints_with_one_url_need_it() {
    let of = |more: serde_json::Value| {
        let mut all = json!({ "url": "https://example.org/a" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        endpoint(all)
    };
    let named = [of(json!({ "label": "billing" })), of(json!({ "label": "search-2" })), of(json!({}))];
    assert_eq!(labels_of(&named)[..2], ["billing", "search-2"]);
    assert!(Endpoint::check_labels(&named).is_empty());
    let twice = [of(json!({})), of(json!({ "event_types": ["cache_miss"] }))];
    assert!(matches!(&Endpoint::check_labels(&twice)[..], [(1, LabelError::Taken(_))]));
    let same = [of(json!({ "label": "a" })), of(json!({ "label": "a" }))];
    assert_eq!(Endpoint::check_labels(&same), [(1, LabelError::Taken(Label::from("a")))]);
    for label in ["", "a b", "a\nb", "ü", &"x".repeat(65)] {
        assert_eq!(Endpoint::check_labels(&[of(json!({ "label": label }))]), [(0, LabelError::Form)], "{label:?}");
    }
}
