//! `carillon webhooks`: what endpoints did not take in time.

use std::fmt::Write;

use anyhow::{Context, anyhow};
use shared::app::AppId;
use shared::redis::Link;
use shared::webhook::{DeadLetter, DeadLetters, Endpoint, Label};
use tokio::runtime::Handle;

use crate::args::{Letters, Settings, WebhooksCommand};
use crate::config::{Config, Role};
use crate::{Failure, say};

/// Carries out one of the commands.
pub(crate) async fn run(command: &WebhooksCommand) -> Result<(), Failure> {
    let (WebhooksCommand::List(args) | WebhooksCommand::Replay(args) | WebhooksCommand::Purge(args)) = command;
    let settings = Settings { files: args.files.clone(), redis: args.redis.clone(), ..Settings::default() };
    let config = Config::load(&settings, Role::Up)?;
    if !config.redis.is_set() {
        return Err(anyhow!("no Redis is configured (redis.url): without one, nothing is kept of such webhooks").into());
    }
    let link = Link::new(&config.redis, Handle::current()).context("redis")?;
    let apps = config.apps.iter().filter(|app| args.app_id.as_ref().is_none_or(|wanted| *wanted == app.id));
    let mut count = 0;
    for app in apps {
        let endpoints: Vec<Label> = Endpoint::labelled(&app.webhooks).into_iter().map(|(label, _)| label).collect();
        let app = &app.id;
        let letters = DeadLetters::new(link.clone(), app.clone());
        let all = letters.list().await.context("redis")?;
        for letter in all.iter().filter(|letter| args.mean(letter)) {
            count += 1;
            match command {
                WebhooksCommand::List(_) => say(&line(app, letter)),
                WebhooksCommand::Replay(_) => {
                    let endpoint = args.to.as_deref().map_or_else(|| letter.endpoint.clone(), Label::from);
                    if !endpoints.contains(&endpoint) {
                        let names: Vec<&str> = endpoints.iter().map(Label::as_str).collect();
                        return Err(anyhow!(
                            "{} was for {endpoint}, which is no endpoint of {app} any more: name one with --to, of {}",
                            letter.entry.id,
                            names.join(", ")
                        )
                        .into());
                    }
                    letters.replay(letter, &endpoint).await.context("redis")?;
                }
                WebhooksCommand::Purge(_) => letters.purge(letter).await.context("redis")?,
            }
        }
    }
    match command {
        WebhooksCommand::List(_) => {}
        WebhooksCommand::Replay(_) => say(&format!("queued again: {count}\n")),
        WebhooksCommand::Purge(_) => say(&format!("forgotten: {count}\n")),
    }
    Ok(())
}

impl Letters {
    fn mean(&self, letter: &DeadLetter) -> bool {
        let is_id = self.ids.is_empty() || self.ids.iter().any(|id| id == letter.entry.id.as_str());
        is_id && self.endpoint.as_ref().is_none_or(|endpoint| endpoint == letter.endpoint.as_str())
    }
}

fn line(app: &AppId, letter: &DeadLetter) -> String {
    let DeadLetter { place, endpoint, entry, attempts, error, .. } = letter;
    let given_up = std::time::UNIX_EPOCH + std::time::Duration::from_millis(place.at_ms().unwrap_or(0));
    let given_up = humantime_serde::re::humantime::format_rfc3339_seconds(given_up);
    let (id, kind, channel) = (&entry.id, entry.occurrence.kind().name(), entry.channel.as_str());
    let mut line = String::new();
    // Writing to memory cannot fail.
    let _ = writeln!(line, "{given_up} {id} {app} {endpoint} {kind} {channel} {attempts} {error}");
    line
}
