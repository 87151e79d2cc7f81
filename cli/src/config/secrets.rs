//! Reads secrets from separate files. Docker and Kubernetes provide secrets in this form.

use std::fs;
use std::path::Path;

use shared::config::Mistake;
use shared::secret::Secret;

use super::Config;

/// Reads every file that the configuration names for a secret. Giving both a secret and its file is a mistake.
pub(super) fn read(config: &mut Config, mistakes: &mut Vec<Mistake>) {
    let redis = &mut config.redis;
    if let Some(path) = &redis.url_file {
        let source = SecretSource { section: "redis", given: "url", file: "url_file" };
        store(source.read(path, !redis.url.is_empty()), &mut redis.url, mistakes);
    }
    for (index, app) in config.apps.iter_mut().enumerate() {
        let section = format!("apps.{index}");
        if let Some(path) = &app.secret_file {
            let source = SecretSource { section: &section, given: "secret", file: "secret_file" };
            store(source.read(path, !app.secret.is_empty()), &mut app.secret, mistakes);
        }
        for (number, endpoint) in app.webhooks.iter_mut().enumerate() {
            let section = format!("{section}.webhooks.{number}");
            for (name, path) in &endpoint.header_files {
                let (given, file) = (format!("headers.{name}"), format!("header_files.{name}"));
                let source = SecretSource { section: &section, given: &given, file: &file };
                let is_given = endpoint.headers.keys().any(|given| given.eq_ignore_ascii_case(name));
                let read = source.read(path, is_given);
                store(read, endpoint.headers.entry(name.clone()).or_insert_with(|| Secret::new("")), mistakes);
            }
        }
    }
}

/// The two keys that can give one secret: directly, or as the path of a file.
struct SecretSource<'a> {
    section: &'a str,
    given: &'a str,
    file: &'a str,
}

impl SecretSource<'_> {
    /// Reads the file without its last line break. `is_given`: whether the secret is also given directly.
    fn read(&self, path: &Path, is_given: bool) -> Result<Secret, Mistake> {
        let Self { section, given, file } = self;
        let mistake = |complaint| Mistake::new(format!("{section}.{file}"), complaint);
        if is_given {
            return Err(mistake(format!("expected either {given} or {file}, not both")));
        }
        let text =
            fs::read_to_string(path).map_err(|error| mistake(format!("cannot read {}: {error}", path.display())))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(mistake(format!("expected a secret, but {} is empty", path.display())));
        }
        Ok(Secret::new(text))
    }
}

fn store(read: Result<Secret, Mistake>, secret: &mut Secret, mistakes: &mut Vec<Mistake>) {
    match read {
        Ok(read) => *secret = read,
        Err(mistake) => mistakes.push(mistake),
    }
}
