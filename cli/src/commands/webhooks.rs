//! `carillon webhooks`: lists, replays and deletes undelivered webhooks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, anyhow};
use shared::app::{AppId, Endpoint, Label};
use shared::cluster::redis::Link;
use shared::cluster::redis::metrics::Metrics;
use shared::cluster::webhook::{DeadLetter, DeadLetters, QueueError};
use shared::serve::telemetry::metrics::Registry;
use tokio::runtime::Handle;

use crate::args::{Letters, Role, Settings, WebhooksCommand};
use crate::config::Config;
use crate::output::{Failure, print};

/// Runs one of the commands.
///
/// # Errors
/// [`Failure`]. A selected id that does not exist is reported after all other work is done.
pub(crate) async fn run(command: &WebhooksCommand) -> Result<(), Failure> {
    let (letters, endpoint) = match command {
        WebhooksCommand::List(args) => (&args.letters, &args.endpoint),
        WebhooksCommand::Replay(args) => (&args.letters, &args.endpoint),
        WebhooksCommand::Purge(args) => (&args.letters, &args.endpoint),
    };
    let selected = Selected::load(letters, endpoint.as_deref()).await?;
    let done = match command {
        WebhooksCommand::List(_) => {
            for letter in &selected.letters {
                print(&letter.line());
            }
            Ok(())
        }
        WebhooksCommand::Replay(args) => selected.replay(args.to.as_deref()).await,
        WebhooksCommand::Purge(_) => selected.purge().await,
    };
    done?;
    selected.check_ids()
}

/// The dead letters that a command selects.
struct Selected<'a> {
    args: &'a Letters,
    letters: Vec<Letter>,
    /// The labels of the endpoints of each configured app.
    endpoints: BTreeMap<AppId, Vec<Label>>,
}

/// A dead letter and its store.
struct Letter {
    app: AppId,
    store: DeadLetters,
    letter: DeadLetter,
}

impl<'a> Selected<'a> {
    async fn load(args: &'a Letters, endpoint: Option<&str>) -> Result<Self, Failure> {
        let settings = Settings { files: args.files.clone(), redis: args.redis.clone(), ..Settings::default() };
        let config = Config::load(&settings, Role::Up)?;
        if !config.redis.is_set() {
            let text =
                "no Redis is configured (redis.url): without one, webhooks that cannot be delivered are not kept";
            return Err(anyhow!(text).into());
        }
        let link =
            Link::new(&config.redis, Handle::current(), Metrics::new(&Registry::new(), false)).context("redis")?;
        let labels = |webhooks| Endpoint::labelled(webhooks).into_iter().map(|(label, _)| label).collect();
        let endpoints: BTreeMap<AppId, Vec<Label>> =
            config.apps.iter().map(|app| (app.id.clone(), labels(&app.webhooks))).collect();
        // The dead letters of a removed app can still be listed and deleted.
        let apps = args.app_id.as_ref().map_or_else(|| endpoints.keys().collect(), |app| vec![app]);
        let (mut letters, mut known) = (Vec::new(), BTreeSet::new());
        for app in apps {
            let all = DeadLetters::new(link.clone(), app.clone()).list().await.context("redis")?;
            if all.is_empty() && !endpoints.contains_key(app) {
                return Err(anyhow!("no app {app} is configured, and it has no undelivered webhooks").into());
            }
            known.extend(all.iter().map(|letter| letter.endpoint.clone()));
            known.extend(endpoints.get(app).into_iter().flatten().cloned());
            let selected = all.into_iter().filter(|letter| args.select(letter, endpoint));
            let store = || DeadLetters::new(link.clone(), app.clone());
            letters.extend(selected.map(|letter| Letter { app: app.clone(), store: store(), letter }));
        }
        if let Some(endpoint) = endpoint.filter(|endpoint| !known.contains(&Label::from(*endpoint))) {
            return Err(anyhow!("unknown endpoint {endpoint}: expected one of {}", names(&known)).into());
        }
        Ok(Self { args, letters, endpoints })
    }

    /// Queues the dead letters again, each for its original endpoint, or all for the endpoint `to`.
    async fn replay(&self, to: Option<&str>) -> Result<(), Failure> {
        let to = to.map(Label::from);
        if let Some(to) = &to {
            let of_apps =
                self.endpoints.iter().filter(|(id, _)| self.args.app_id.as_ref().is_none_or(|app| app == *id));
            let known: BTreeSet<Label> = of_apps.flat_map(|(_, labels)| labels).cloned().collect();
            if !known.contains(to) {
                return Err(anyhow!("unknown endpoint {to}: expected one of {}", names(&known)).into());
            }
        }
        let (mut count, mut left) = (0, Vec::new());
        for Letter { app, store, letter } in &self.letters {
            let endpoint = to.as_ref().unwrap_or(&letter.endpoint);
            if !self.endpoints.get(app).is_some_and(|labels| labels.contains(endpoint)) {
                left.push((&letter.event.id, app, endpoint));
                continue;
            }
            store.replay(letter, endpoint).await.map_err(|error| interrupted("queued again", count, error))?;
            count += 1;
        }
        print(&format!("queued again: {count}\n"));
        if left.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (id, app, endpoint) in left {
            let labels = self.endpoints.get(app).into_iter().flatten().cloned().collect();
            // Writing to memory cannot fail.
            let _ = writeln!(
                text,
                "{id} was not queued: {app} no longer has the endpoint {endpoint}; select one with --to: {}",
                names(&labels)
            );
        }
        Err(anyhow!(text.trim_end().to_owned()).into())
    }

    async fn purge(&self) -> Result<(), Failure> {
        let mut count = 0;
        for letter in &self.letters {
            letter.store.purge(&letter.letter).await.map_err(|error| interrupted("deleted", count, error))?;
            print(&letter.line());
            count += 1;
        }
        print(&format!("deleted: {count}\n"));
        Ok(())
    }

    /// Fails if a given id matches no dead letter.
    fn check_ids(&self) -> Result<(), Failure> {
        let is_known = |id: &&String| self.letters.iter().any(|letter| letter.letter.event.id.as_str() == id.as_str());
        let unknown: Vec<&str> = self.args.ids.iter().filter(|id| !is_known(id)).map(String::as_str).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(anyhow!("no undelivered webhook has the id {}", unknown.join(", ")).into())
    }
}

impl Letters {
    fn select(&self, letter: &DeadLetter, endpoint: Option<&str>) -> bool {
        let is_id = self.ids.is_empty() || self.ids.iter().any(|id| id == letter.event.id.as_str());
        is_id && endpoint.is_none_or(|endpoint| endpoint == letter.endpoint.as_str())
    }
}

impl Letter {
    fn line(&self) -> String {
        let DeadLetter { stream_id, endpoint, event, attempts, error, .. } = &self.letter;
        let given_up = std::time::UNIX_EPOCH + std::time::Duration::from_millis(stream_id.at_ms().unwrap_or(0));
        let given_up = humantime_serde::re::humantime::format_rfc3339_seconds(given_up);
        let (id, kind, channel, app) = (&event.id, event.occurrence.kind().name(), event.channel.as_str(), &self.app);
        format!("{given_up} {id} {app} {endpoint} {kind} {channel} {attempts} {error}\n")
    }
}

/// Returns an error during the work, with the number of letters that were processed before.
fn interrupted(verb: &str, count: usize, error: QueueError) -> Failure {
    anyhow::Error::new(error).context(format!("redis (before that, {verb}: {count})")).into()
}

fn names(labels: &BTreeSet<Label>) -> String {
    if labels.is_empty() {
        return "none, since no endpoint is configured".into();
    }
    labels.iter().map(Label::as_str).collect::<Vec<_>>().join(", ")
}
