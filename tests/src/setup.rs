//! The configuration of a server under test.

use std::fmt::Write;

use shared::app::App;

/// The id of the app that tests use.
pub const APP_ID: &str = "shop";
/// Its key.
pub const APP_KEY: &str = "shop-key";
/// Its secret. It is unusual enough to be searched for in logs.
pub const APP_SECRET: &str = "never-print-me-5f3a9c";

/// The configuration of a server: the lines of each section, and further flags.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    server: String,
    drain: String,
    redis: String,
    app: String,
    limits: String,
    more: String,
    pub(crate) flags: Vec<String>,
}

impl Setup {
    /// Adds a line to `[server]`.
    pub fn server(self, line: &str) -> Self {
        Self { server: self.server + line + "\n", ..self }
    }

    /// Adds a line to `[drain]`.
    pub fn drain(self, line: &str) -> Self {
        Self { drain: self.drain + line + "\n", ..self }
    }

    /// Adds a line to `[redis]`.
    pub fn redis(self, line: &str) -> Self {
        Self { redis: self.redis + line + "\n", ..self }
    }

    /// Adds a line to the app.
    pub fn app(self, line: &str) -> Self {
        Self { app: self.app + line + "\n", ..self }
    }

    /// Adds a line to the limits of the app.
    pub fn limit(self, line: &str) -> Self {
        Self { limits: self.limits + line + "\n", ..self }
    }

    /// Adds sections after all others.
    pub fn more(self, text: &str) -> Self {
        Self { more: self.more + text + "\n", ..self }
    }

    /// Adds a command line flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Returns the content of the file.
    pub fn toml(&self) -> String {
        let Self { server, drain, redis, app, limits, more, .. } = self;
        let mut text = format!("[server]\n{server}\n");
        // Without this line a drain waits until load balancers notice it. Only a few tests need that.
        let drain = if drain.contains("accept") { drain.clone() } else { format!("accept = \"0s\"\n{drain}") };
        for (section, lines) in [("drain", &drain), ("redis", redis)] {
            if !lines.is_empty() {
                let _ = write!(text, "[{section}]\n{lines}\n");
            }
        }
        let _ = write!(
            text,
            "[[apps]]\nid = \"{APP_ID}\"\nkey = \"{APP_KEY}\"\nsecret = \"{APP_SECRET}\"\n{app}\n[apps.limits]\n{limits}\n{more}"
        );
        text
    }
}

/// Returns the app that tests use, for clients and publishers.
pub fn app() -> App {
    App::with_defaults(APP_ID, APP_KEY, APP_SECRET)
}
