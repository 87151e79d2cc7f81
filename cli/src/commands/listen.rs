//! `carillon listen`: subscribes and prints what arrives.

use std::time::Duration;

use anyhow::anyhow;
use serde_json::json;
use shared::app::App;
use shared::protocol::ChannelName;

use crate::args::Listen;
use crate::commands::credentials;
use crate::output::{Failure, complain, say};
use client::{Client, Message, Options};

/// Prints a line per message, until the count or the time is over, or the server closes.
pub(crate) async fn run(args: &Listen) -> Result<(), Failure> {
    let (url, app) = credentials::of(&args.target)?;
    let options = Options { trust: credentials::trust(args.target.ca.as_deref())?, ..Options::default() };
    let listening = async {
        let mut client = Client::connect(&url, app.key.as_str(), &options).await?;
        for channel in &args.channels {
            subscribe(&mut client, &app, channel, args).await?;
        }
        complain(&format!("listening on {} as {}", args.channels.join(", "), client.socket_id()));
        print(&mut client, args.count).await?;
        Ok(client.close().await?)
    };
    match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, listening).await.map_err(|_| over(timeout, args.count))?,
        None => listening.await,
    }
}

async fn subscribe(client: &mut Client, app: &App, channel: &str, args: &Listen) -> Result<(), Failure> {
    let in_channel = |error| anyhow::Error::new(error).context(format!("cannot subscribe to {channel}"));
    let name = ChannelName::parse(channel, usize::MAX).map_err(|error| anyhow!("{channel}: {error}"))?;
    if let Some(user_id) = name.user_id() {
        let user_data = json!({ "id": user_id }).to_string();
        client.sign_in(app, &user_data).await.map_err(in_channel)?;
    }
    let member = name.kind().is_presence().then(|| member(args));
    let subscribed = if name.kind().needs_auth() {
        client.subscribe_signed(app, channel, member.as_deref()).await
    } else {
        client.subscribe(channel).await
    };
    subscribed.map(drop).map_err(|error| in_channel(error).into())
}

/// The `channel_data` of this listener.
fn member(args: &Listen) -> String {
    json!({ "user_id": args.user_id, "user_info": args.user_info }).to_string()
}

/// `count`: lines to print before it returns; `None` for no end.
async fn print(client: &mut Client, count: Option<u64>) -> Result<(), Failure> {
    let mut printed = 0;
    while count.is_none_or(|count| printed < count) {
        let message = client.next_message().await?;
        if let Some(refusal) = message.refusal() {
            complain(&format!("meanwhile, {refusal}"));
        } else if let Some(line) = line(&message) {
            say(&line);
            printed += 1;
        }
    }
    Ok(())
}

/// `None` for messages that belong to no channel.
fn line(message: &Message) -> Option<String> {
    let channel = message.channel.as_ref()?;
    Some(format!("{channel} {} {}\n", message.event, message.data))
}

fn over(timeout: Duration, count: Option<u64>) -> anyhow::Error {
    match count {
        Some(count) => anyhow!("--count {count} was not reached within {timeout:?}"),
        None => anyhow!("stopped after {timeout:?}, as --timeout says"),
    }
}
