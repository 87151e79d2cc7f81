//! Lists whose entries are given by number, like `CARILLON_APPS__0__LIMITS__CONNECTIONS`.

use figment::value::{Dict, Value};

/// The error for a number that skips entries of a list.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    /// The key with the number, with its levels separated by dots.
    path: String,
    /// The number of entries in the list.
    length: usize,
}

impl Gap {
    /// Returns the gap with a path from one level above.
    pub(super) fn below(self, key: &str) -> Self {
        Self { path: format!("{key}.{}", self.path), ..self }
    }
}

impl From<Gap> for figment::Error {
    fn from(gap: Gap) -> Self {
        let complaint = format!("expected an entry {} before this one: entries are counted from 0", gap.length);
        Self::from(complaint).with_path(&gap.path)
    }
}

/// Overlays `below` with `above`. Tables are merged by key, and a list is merged with a table of numbers by entry.
/// Other values replace `below`.
///
/// # Errors
/// If a number skips entries.
pub(super) fn overlay(below: Option<&Value>, above: Value) -> Result<Value, Gap> {
    let Value::Dict(tag, above) = above else { return Ok(above) };
    match below {
        Some(Value::Dict(below_tag, below)) => Ok(Value::Dict(*below_tag, tables(Some(below), above)?)),
        Some(Value::Array(below_tag, below)) if is_numbered(&above) => {
            Ok(Value::Array(*below_tag, entries(below.clone(), above)?))
        }
        None if is_numbered(&above) => Ok(Value::Array(tag, entries(Vec::new(), above)?)),
        _ => Ok(Value::Dict(tag, tables(None, above)?)),
    }
}

fn tables(below: Option<&Dict>, above: Dict) -> Result<Dict, Gap> {
    let mut whole = below.cloned().unwrap_or_default();
    for (key, value) in above {
        let value = overlay(whole.get(&key), value).map_err(|gap| gap.below(&key))?;
        whole.insert(key, value);
    }
    Ok(whole)
}

fn entries(mut list: Vec<Value>, above: Dict) -> Result<Vec<Value>, Gap> {
    let mut numbered: Vec<(usize, Value)> =
        above.into_iter().filter_map(|(key, value)| Some((key.parse().ok()?, value))).collect();
    numbered.sort_by_key(|(number, _)| *number);
    for (number, value) in numbered {
        if number > list.len() {
            return Err(Gap { path: number.to_string(), length: list.len() });
        }
        let value = overlay(list.get(number), value).map_err(|gap| gap.below(&number.to_string()))?;
        match list.get_mut(number) {
            Some(entry) => *entry = value,
            None => list.push(value),
        }
    }
    Ok(list)
}

/// Returns whether all keys of the table are numbers.
fn is_numbered(table: &Dict) -> bool {
    let is_number = |key: &String| key.bytes().all(|byte| byte.is_ascii_digit()) && key.parse::<usize>().is_ok();
    !table.is_empty() && table.keys().all(is_number)
}
