//! Checks the rules of the configuration that its types cannot express.

use bytesize::ByteSize;
use hyper::header::{HeaderName, HeaderValue};
use shared::app::endpoint::CONCURRENCY_MAX;
use shared::app::{App, AppLimits, Apps, Endpoint, KEY_EXPECTED, is_key};
use shared::config::{Mistake, Validate};
use shared::protocol::channel::USER_PREFIX;

use super::Config;

/// The maximum of `message_bytes`. A connection can use this much memory for an incomplete message.
const MESSAGE_BYTES_CEILING: ByteSize = ByteSize::mib(64);

/// The rule for ids in errors; [`is_name`] applies it.
pub(crate) const NAME_EXPECTED: &str = "expected one or more letters, digits, hyphens, dots, underscores or tildes";

impl Config {
    /// Checks the rules of all sections, and those between sections.
    pub(super) fn validate(&self, mistakes: &mut Vec<Mistake>) {
        let sections: [&dyn Validate; 4] = [&self.gateway(), &self.redis, &self.webhooks, &self.tls];
        mistakes.extend(sections.into_iter().flat_map(Validate::validate));
        for (key, host) in
            [("server.host", &self.server.host), ("admin.host", &self.admin.host), ("peers.host", &self.peers.host)]
        {
            if host.is_empty() {
                mistakes.push(Mistake::new(key, "expected an address to listen on, like \"127.0.0.1\""));
            }
        }
        mistakes.extend(self.log.validate());
        for (index, app) in self.apps.iter().enumerate() {
            validate_app(&format!("apps.{index}"), app, mistakes);
            for (number, endpoint) in app.webhooks.iter().enumerate() {
                self.validate_endpoint(&format!("apps.{index}.webhooks.{number}"), endpoint, mistakes);
            }
            for (number, error) in Endpoint::check_labels(&app.webhooks) {
                mistakes.push(Mistake::new(format!("apps.{index}.webhooks.{number}.label"), error.to_string()));
            }
            self.validate_outbox(&format!("apps.{index}.limits"), &app.limits, mistakes);
        }
        if let Err(error) = Apps::new(self.apps.iter().cloned()) {
            mistakes.push(Mistake::new("apps", format!("expected ids and keys to be unique, but {error}")));
        }
    }

    fn validate_endpoint(&self, key: &str, endpoint: &Endpoint, mistakes: &mut Vec<Mistake>) {
        let mut complain = |name: &str, complaint| mistakes.push(Mistake::new(format!("{key}.{name}"), complaint));
        let url = &endpoint.url;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            complain("url", format!("expected http:// or https:// and a host, not {}:", url.scheme()));
        }
        if let Err(refused) = webhooks::check_url(url, self.webhooks.refuse_private_networks) {
            complain("url", format!("expected another host: {refused}"));
        }
        for (name, value) in &endpoint.headers {
            let lower_case = name.to_ascii_lowercase();
            if webhooks::RESERVED_HEADERS.contains(&lower_case.as_str()) {
                complain("headers", format!("expected no {name:?}, because the server sets this header"));
            } else if name.parse::<HeaderName>().is_err() {
                complain("headers", format!("expected header names, not {name:?}"));
            } else if HeaderValue::from_str(value.reveal()).is_err() {
                complain("headers", format!("expected visible ASCII characters as the value of {name:?}"));
            }
        }
        if !(1..=CONCURRENCY_MAX).contains(&endpoint.concurrency) {
            let complaint = format!("expected between 1 and {CONCURRENCY_MAX}, not {}", endpoint.concurrency);
            complain("concurrency", complaint);
        }
    }

    /// Checks that the send queue of a client can hold the largest event. Otherwise, a large event would close a slow
    /// client.
    fn validate_outbox(&self, key: &str, limits: &AppLimits, mistakes: &mut Vec<Mistake>) {
        let outbox = self.server.outbox_bytes;
        // JSON escapes can double the size of an event.
        if limits.event_bytes.as_u64().saturating_mul(2) > outbox.as_u64() {
            let event = limits.event_bytes;
            let complaint = format!("expected at most half of server.outbox_bytes, which is {outbox}, not {event}");
            mistakes.push(Mistake::new(format!("{key}.event_bytes"), complaint));
        }
    }
}

/// Returns whether a text can be the id of an app, which is one segment of a path.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn validate_app(key: &str, app: &App, mistakes: &mut Vec<Mistake>) {
    let mut complain = |name: &str, complaint| mistakes.push(Mistake::new(format!("{key}.{name}"), complaint));
    if !is_name(app.id.as_str()) {
        complain("id", format!("{NAME_EXPECTED}, not {:?}", app.id));
    }
    if !is_key(app.key.as_str()) {
        complain("key", format!("{KEY_EXPECTED}, not {:?}", app.key));
    }
    if app.secret.is_empty() && app.secret_file.is_none() {
        complain("secret", "expected a secret, or secret_file".into());
    }
    let limits = &app.limits;
    let positive = [
        ("limits.channels_per_connection", limits.channels_per_connection == 0),
        ("limits.event_bytes", limits.event_bytes.as_u64() == 0),
        ("limits.channel_name_length", limits.channel_name_length == 0),
        ("limits.event_name_length", limits.event_name_length == 0),
        ("limits.channels_per_event", limits.channels_per_event == 0),
        ("limits.batch", limits.batch == 0),
        ("limits.presence_members", limits.presence_members == 0),
        ("limits.user_id_length", limits.user_id_length == 0),
    ];
    for (name, _) in positive.iter().filter(|(_, is_zero)| *is_zero) {
        complain(name, "expected at least 1, since 0 would refuse everything".into());
    }
    if limits.message_bytes > MESSAGE_BYTES_CEILING {
        complain("limits.message_bytes", format!("expected at most 64MiB, not {}", limits.message_bytes));
    }
    let user_channel_length = USER_PREFIX.len() + limits.user_id_length;
    if limits.channel_name_length < user_channel_length {
        let complaint = format!(
            "expected at least {user_channel_length}, or users could not subscribe to their own channel, not {}",
            limits.channel_name_length
        );
        complain("limits.channel_name_length", complaint);
    }
}
