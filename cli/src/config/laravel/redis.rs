//! The URL of the Redis that Reverb would use for scaling.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use shared::config::Mistake;
use shared::secret::Secret;
use url::Url;

use super::{Found, Laravel};

/// The parts of a Redis URL.
#[derive(Default)]
struct Parts {
    is_tls: bool,
    host: String,
    port: String,
    username: String,
    password: String,
    database: String,
}

/// Returns the URL of the Redis in the `REDIS_` variables. Like in Laravel, the parts that `REDIS_URL` lacks come from
/// the other variables.
///
/// # Errors
/// If a variable cannot be read.
pub(super) fn url(laravel: &Laravel<'_>) -> Result<Secret, Mistake> {
    let text = |name, default: &str| -> Result<String, Mistake> {
        let value = laravel.set(name)?.map(|found| found.text().to_owned());
        Ok(value.unwrap_or_else(|| default.to_owned()))
    };
    let mut parts = Parts {
        is_tls: matches!(text("REDIS_SCHEME", "")?.as_str(), "tls" | "rediss"),
        host: text("REDIS_HOST", "127.0.0.1")?,
        port: text("REDIS_PORT", "6379")?,
        username: text("REDIS_USERNAME", "")?,
        password: text("REDIS_PASSWORD", "")?,
        database: text("REDIS_DB", "0")?,
    };
    if let Some(host) = parts.host.strip_prefix("tls://") {
        parts = Parts { is_tls: true, host: host.to_owned(), ..parts };
    }
    if let Some(found) = laravel.set("REDIS_URL")? {
        parts.apply_url(&found)?;
    }
    Ok(Secret::new(parts.url()))
}

impl Parts {
    fn apply_url(&mut self, found: &Found<'_>) -> Result<(), Mistake> {
        let wrong = || found.mistake("expected a URL like \"redis://user:password@host:6379/0\"");
        let url = Url::parse(found.text()).map_err(|_| wrong())?;
        self.is_tls = match url.scheme() {
            "redis" | "tcp" => false,
            "rediss" | "tls" => true,
            _ => return Err(wrong()),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        self.host = url.host_str().filter(|host| !host.is_empty()).map(decoded).ok_or_else(wrong)?;
        if let Some(port) = url.port() {
            self.port = port.to_string();
        }
        // In Laravel, `redis://null:password@host` means no user name.
        let username = decoded(url.username());
        if !username.is_empty() {
            self.username = if username == "null" { String::new() } else { username };
        }
        if let Some(password) = url.password() {
            self.password = decoded(password);
        }
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() {
            database.clone_into(&mut self.database);
        }
        Ok(())
    }

    fn url(&self) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (username, password) = (encoded(&self.username), encoded(&self.password));
        let database = encoded(&self.database);
        if self.host.starts_with('/') {
            let mut url = format!("redis+unix://{}?db={database}", self.host);
            for (name, value) in [("user", username), ("pass", password)] {
                if !value.is_empty() {
                    url.push_str(&format!("&{name}={value}"));
                }
            }
            return url;
        }
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let host = match self.host.trim_matches(['[', ']']) {
            host if host.contains(':') => format!("[{host}]"),
            host => host.to_owned(),
        };
        let login = match (username.as_str(), password.as_str()) {
            ("", "") => String::new(),
            (username, "") => format!("{username}@"),
            (username, password) => format!("{username}:{password}@"),
        };
        format!("{scheme}://{login}{host}:{}/{database}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::laravel_of;
    use super::*;

    #[track_caller]
    fn check(file: &str, expected: &str) {
        let laravel = laravel_of(file);
        assert_eq!(url(&laravel.borrow()).unwrap().reveal(), expected, "{file}");
    }

    #[test]
    fn variables_of_laravel_form_a_url() {
        check("", "redis://127.0.0.1:6379/0");
        check("REDIS_HOST=10.0.0.1\nREDIS_PORT=6380\nREDIS_DB=3", "redis://10.0.0.1:6380/3");
        check("REDIS_PASSWORD=null\nREDIS_USERNAME=null", "redis://127.0.0.1:6379/0");
        check("REDIS_PASSWORD='p@ss:w/rd#1'", "redis://:p%40ss%3Aw%2Frd%231@127.0.0.1:6379/0");
        check("REDIS_USERNAME=app\nREDIS_PASSWORD=s", "redis://app:s@127.0.0.1:6379/0");
        check("REDIS_HOST=::1", "redis://[::1]:6379/0");
        check("REDIS_HOST=[::1]", "redis://[::1]:6379/0");
        check("REDIS_HOST=tls://db.example\nREDIS_PASSWORD=s", "rediss://:s@db.example:6379/0");
        check("REDIS_HOST=db.example\nREDIS_SCHEME=tls", "rediss://db.example:6379/0");
        check("REDIS_HOST=/run/redis.sock\nREDIS_PORT=0\nREDIS_PASSWORD=s", "redis+unix:///run/redis.sock?db=0&pass=s");
    }

    #[test]
    fn the_url_takes_precedence_and_other_variables_complete_it() {
        check("REDIS_URL=redis://h:1/2\nREDIS_HOST=x\nREDIS_PORT=9\nREDIS_DB=3", "redis://h:1/2");
        check("REDIS_URL=redis://h\nREDIS_PASSWORD=s\nREDIS_DB=3", "redis://:s@h:6379/3");
        check("REDIS_URL=rediss://null:p%40s@h:1", "rediss://:p%40s@h:1/0");
        check("REDIS_URL=tls://u:p@h", "rediss://u:p@h:6379/0");
        check("REDIS_URL=tcp://h", "redis://h:6379/0");
        check("REDIS_URL=\nREDIS_HOST=x", "redis://x:6379/0");
    }

    #[test]
    fn an_invalid_url_is_reported_without_its_password() {
        for value in ["h:hush@", "http://u:hush@h", "redis://"] {
            let laravel = laravel_of(&format!("REDIS_URL={value}"));
            let mistake = url(&laravel.borrow()).unwrap_err().to_string();
            assert!(mistake.starts_with("REDIS_URL: expected a URL") && !mistake.contains("hush"), "{mistake}");
        }
    }
}
