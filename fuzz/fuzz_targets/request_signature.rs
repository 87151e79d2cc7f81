//! Checks that a signed request is accepted, and that changed requests and forged queries are rejected.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use shared::app::App;
use shared::auth::SignedQuery;
use shared::auth::request::signed_query;

const NOW_S: u64 = 1_353_088_179;

static APP: LazyLock<App> = LazyLock::new(|| {
    let app = r#"{"id":"3","key":"278d425bdf160c739803","secret":"7ad3773142a6692b25b8"}"#;
    serde_json::from_str(app).expect("an app")
});

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    method: Method,
    path: &'a str,
    params: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
    change: Change<'a>,
}

#[derive(Debug, Arbitrary)]
enum Method {
    Get,
    Post,
}

#[derive(Debug, Arbitrary)]
enum Change<'a> {
    Nothing,
    Query {
        at: usize,
        with: &'a str,
    },
    Path {
        at: usize,
        with: &'a str,
    },
    Body {
        at: usize,
        with: &'a [u8],
    },
    Method,
    /// A query without a valid signature.
    Forged(&'a str),
}

fuzz_target!(|input: Input<'_>| {
    let Input { method, path, params, body, change } = input;
    let (method, other_method) = match method {
        Method::Get => ("GET", "POST"),
        Method::Post => ("POST", "GET"),
    };
    // The signer adds these parameters, and treats names that differ only in case as the same name.
    let own = ["auth_key", "auth_timestamp", "auth_version", "auth_signature", "body_md5"];
    if params.iter().any(|(name, _)| own.contains(&&*name.to_ascii_lowercase())) {
        return;
    }
    let query = signed_query(&APP, method, path, &params, body, NOW_S);
    let accepts = |query: &str, method: &str, path: &str, body: &[u8]| {
        let query = SignedQuery::parse(query);
        query.verify_head(&APP, method, path, NOW_S).is_ok() && query.verify_body(body).is_ok()
    };
    match change {
        Change::Nothing => assert!(accepts(&query, method, path, body), "rejected: {query}"),
        Change::Query { at, with } => {
            let changed = spliced(query.as_bytes(), at, with.as_bytes());
            let changed = String::from_utf8_lossy(&changed);
            let accepted = accepts(&changed, method, path, body);
            let (before, after) = (Canonical::of(&query), Canonical::of(&changed));
            let same = after.pairs == before.pairs;
            let same_text = after.repeated() == before.repeated() || after.joined() == before.repeated();
            assert!(!same || accepted, "rejected: {query} -> {changed}");
            assert!(!accepted || same_text, "accepted: {query} -> {changed}");
        }
        Change::Path { at, with } => {
            let changed = spliced(path.as_bytes(), at, with.as_bytes());
            let changed = String::from_utf8_lossy(&changed);
            // The signer may omit a prefix of the path, and may sign the decoded path.
            let related = changed == path || changed.contains('%') || changed.ends_with(path);
            assert!(related || !accepts(&query, method, &changed, body), "{path:?} -> {changed:?}");
        }
        Change::Body { at, with } => {
            let changed = spliced(body, at, with);
            assert_eq!(accepts(&query, method, path, &changed), changed == body, "{body:?} -> {changed:?}");
        }
        Change::Method => assert!(!accepts(&query, other_method, path, body)),
        Change::Forged(forged) => assert!(!accepts(forged, method, path, body), "{forged}"),
    }
});

/// Returns `bytes` with a part replaced by `with`, which has the same length unless the end is reached.
fn spliced(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let at = at % (bytes.len() + 1);
    let end = (at + with.len()).min(bytes.len());
    [&bytes[..at], with, &bytes[end..]].concat()
}

/// The parameters of a query, decoded and sorted by name as in section 4.1 of the protocol reference.
struct Canonical {
    pairs: Vec<(String, String)>,
}

impl Canonical {
    fn of(query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut pairs: Vec<_> = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { pairs }
    }

    /// Returns the signed text with each value of an array as a separate parameter.
    fn repeated(&self) -> Vec<String> {
        self.text(|group| group.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
    }

    /// Returns the signed text with the values of an array joined by commas.
    fn joined(&self) -> Vec<String> {
        self.text(|group| {
            let values: Vec<&str> = group.iter().map(|(_, value)| value.as_str()).collect();
            let name = if group.len() > 1 { group[0].0.trim_end_matches("[]") } else { &group[0].0 };
            format!("{name}={}", values.join(","))
        })
    }

    /// Returns the signed text and the signature.
    fn text(&self, of_group: impl Fn(&[(String, String)]) -> String) -> Vec<String> {
        let (signature, rest): (Vec<_>, Vec<_>) =
            self.pairs.iter().cloned().partition(|(name, _)| name == "auth_signature");
        let groups: Vec<String> = rest.chunk_by(|(a, _), (b, _)| a == b).map(of_group).collect();
        vec![groups.join("&"), signature.last().map(|(_, value)| value.clone()).unwrap_or_default()]
    }
}
