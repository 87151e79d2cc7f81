use super::*;
use crate::app::App;

#[test]
fn apps_beyond_the_first_hundred_by_id_share_a_label() {
    let app = |number: usize| -> App {
        serde_json::from_value(serde_json::json!({"id": format!("app{number:03}"), "key": number})).unwrap()
    };
    let apps = Apps::new((0..=APP_LABELS_MAX).rev().map(app)).unwrap();
    let labels = app_labels(&apps);
    let labels: Vec<(&str, &str)> = labels.iter().map(|(id, label)| (id.as_str(), *label)).collect();
    assert_eq!((labels.len(), labels[0], labels[99]), (101, ("app000", "app000"), ("app099", "app099")));
    assert_eq!(labels[100], ("app100", "other"));
}
