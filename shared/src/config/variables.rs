//! `CARILLON_…` variables as values. figment's own reader panics on a name like `CARILLON___X`.

use figment::value::{Dict, Num, Value};

use super::{ENV_PREFIX, kubernetes};

/// Reads the variables that are configuration, as nested tables. Later ones override earlier ones.
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

/// Whether a key has a text as its value, whatever it looks like: `true` and `[a]` may be secrets.
fn is_text(path: &str) -> bool {
    path.starts_with("apps.") && [".id", ".key", ".secret"].iter().any(|end| path.ends_with(end))
}

/// Reads a text, with one pair of quotes removed.
fn read_text(text: &str) -> Value {
    let trimmed = text.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| trimmed.strip_prefix(quote)?.strip_suffix(quote));
    Value::from(quoted.unwrap_or(trimmed))
}

/// Reads a variable as figment does, with these exceptions: `007`, `+7` and `1.10` stay texts, since an id or a secret
/// may look like that and no setting is a fraction; and a pair of single quotes is removed, which `docker run --env-file`
/// leaves in place. Inside a list, as in `[{id=007}]`, figment's rules hold, and double quotes keep a text as it is.
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
