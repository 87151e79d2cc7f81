//! Reads `CARILLON_…` variables. The reader of figment panics on a name like `CARILLON___X`.

use figment::value::{Dict, Num, Value};

use super::{ENV_PREFIX, kubernetes};

/// Reads the variables that are configuration into nested tables. Later ones override earlier ones.
pub(super) fn read(variables: &[(String, String)]) -> Dict {
    let mut values = Dict::new();
    for (name, value) in variables {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        if kubernetes::is_of_service(name, value) {
            continue;
        }
        let path = path.to_ascii_lowercase().replace("__", ".");
        let nested = figment::util::nest(&path, if is_text(&path) { read_text(value) } else { read_value(value) });
        if let (false, Value::Dict(_, nested)) = (path.is_empty(), nested) {
            merge(&mut values, nested);
        }
    }
    values
}

/// Returns whether the value of a key is always a text. `true` and `[a]` can be secrets.
fn is_text(path: &str) -> bool {
    path.starts_with("apps.") && [".id", ".key", ".secret"].iter().any(|end| path.ends_with(end))
}

/// Reads a text and removes one pair of quotes.
fn read_text(text: &str) -> Value {
    let trimmed = text.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| trimmed.strip_prefix(quote)?.strip_suffix(quote));
    Value::from(quoted.unwrap_or(trimmed))
}

/// Reads a variable like figment, with two exceptions.
///
/// `007`, `+7` and `1.10` stay texts, because ids and secrets can have this form and no setting is a fraction. A pair
/// of single quotes is removed, because `docker run --env-file` keeps them. Inside a list like `[{id=007}]`, the rules
/// of figment apply, and double quotes keep a text unchanged.
fn read_value(text: &str) -> Value {
    let trimmed = text.trim();
    if let Some(quoted) = trimmed.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Value::from(quoted);
    }
    let zeros = trimmed.len() > 1 && trimmed.starts_with('0') && trimmed.bytes().all(|byte| byte.is_ascii_digit());
    if zeros || trimmed.starts_with('+') {
        return Value::from(trimmed);
    }
    match text.parse().expect("figment reads any text as a value") {
        Value::Num(_, Num::F32(_) | Num::F64(_)) => Value::from(trimmed),
        value => value,
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, into)), Value::Dict(_, from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
