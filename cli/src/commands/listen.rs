//! `carillon listen`: subscribes to channels and prints their messages.

use std::time::Duration;

use anyhow::anyhow;
use serde_json::json;
use shared::app::App;
use shared::protocol::ChannelName;

use crate::args::Listen;
use crate::commands::credentials;
use crate::output::{Failure, print, print_error};
use client::{Client, Message, Options};

/// Prints one line per message, until the count or the time limit is reached or the server closes the connection.
pub(crate) async fn run(args: &Listen) -> Result<(), Failure> {
    let (url, app) = credentials::of(&args.target)?;
    let options = Options { trust: credentials::trust(args.target.ca.as_deref())?, ..Options::default() };
    let listening = async {
        let mut client = Client::connect(&url, app.key.as_str(), &options).await?;
        for channel in &args.channels {
            subscribe(&mut client, &app, channel, args).await?;
        }
        print_error(&format!("listening on {} as {}", args.channels.join(", "), client.socket_id()));
        print_messages(&mut client, args.count).await?;
        Ok(client.close().await?)
    };
    match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, listening).await.map_err(|_| over(timeout, args.count))?,
        None => listening.await,
    }
}

async fn subscribe(client: &mut Client, app: &App, channel: &str, args: &Listen) -> Result<(), Failure> {
    let with_channel = |error| anyhow::Error::new(error).context(format!("cannot subscribe to {channel}"));
    let name = ChannelName::parse(channel, usize::MAX).map_err(|error| anyhow!("{channel}: {error}"))?;
    if let Some(user_id) = name.user_id() {
        let user_data = json!({ "id": user_id }).to_string();
        client.sign_in(app, &user_data).await.map_err(with_channel)?;
    }
    let member = name.kind().is_presence().then(|| member(args));
    let subscribed = if name.kind().needs_auth() {
        client.subscribe_signed(app, channel, member.as_deref()).await
    } else {
        client.subscribe(channel).await
    };
    subscribed.map(drop).map_err(|error| with_channel(error).into())
}

/// Returns the `channel_data` of this command.
fn member(args: &Listen) -> String {
    json!({ "user_id": args.user_id, "user_info": args.user_info }).to_string()
}

/// Prints messages. `count`: the number of lines; `None` means no limit.
async fn print_messages(client: &mut Client, count: Option<u64>) -> Result<(), Failure> {
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) {
        let message = client.next_message().await?;
        if let Some(refusal) = message.refusal() {
            print_error(&refusal.to_string());
        } else if let Some(line) = line(&message) {
            print(&line);
            printed += 1;
        }
    }
    Ok(())
}

/// Returns the line for a message. `None` for messages without a channel.
fn line(message: &Message) -> Option<String> {
    let channel = message.channel.as_ref()?;
    Some(format!("{channel} {} {}\n", message.event, message.data))
}

fn over(timeout: Duration, count: Option<u64>) -> anyhow::Error {
    match count {
        Some(count) => anyhow!("--count {count} was not reached within {timeout:?}"),
        None => anyhow!("stopped after {timeout:?} (--timeout)"),
    }
}
