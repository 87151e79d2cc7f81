//! `carillon trigger`: publishes one event.

use anyhow::anyhow;
use hyper::StatusCode;

use crate::args::Trigger;
use crate::commands::credentials;
use crate::output::{Failure, print};
use client::ApiClient;

/// Publishes the event. Fails with the response of the server.
pub(crate) async fn run(args: &Trigger) -> Result<(), Failure> {
    let (url, app) = credentials::of(&args.target)?;
    let mut api = ApiClient::new(url, app).trusting(credentials::trust(args.target.ca.as_deref())?);
    let reply = api.trigger(&[&args.channel], &args.event, &args.data, args.socket_id).await?;
    if reply.status == StatusCode::OK {
        print("published\n");
        return Ok(());
    }
    Err(anyhow!("the server refused: {}: {}", reply.status, reply.body.trim_end()).into())
}
