//! `carillon trigger`: one signed event.

use anyhow::anyhow;
use hyper::StatusCode;

use crate::args::Trigger;
use crate::commands::credentials;
use crate::output::{Failure, say};
use client::ApiClient;

/// Publishes, and says so or fails with what the server said.
pub(crate) async fn run(args: &Trigger) -> Result<(), Failure> {
    let (url, app) = credentials::of(&args.target)?;
    let mut api = ApiClient::new(url, app).trusting(credentials::trust(args.target.ca.as_deref())?);
    let reply = api.trigger(&[&args.channel], &args.event, &args.data, args.socket_id).await?;
    if reply.status == StatusCode::OK {
        say("published\n");
        return Ok(());
    }
    Err(anyhow!("the server refused: {}: {}", reply.status, reply.body.trim_end()).into())
}
