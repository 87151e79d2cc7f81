//! Signed requests to the HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shared::app::App;
use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use shared::protocol::SocketId;
use tokio::net::TcpStream;

use crate::Trust;
use crate::tls::{self, Stream};
use crate::{CONNECT_TIMEOUT, ClientError, ServerUrl};

/// Laravel's own: the whole exchange may take 30 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer that is read: a list of 100,000 channels with long names and counts.
const REPLY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Signs and sends requests for one app, one after the other, over a connection that is kept.
#[derive(Debug)]
pub struct ApiClient {
    url: ServerUrl,
    app: App,
    trust: Trust,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 when it did what was asked.
    pub status: StatusCode,
    /// JSON on success, else usually plain text.
    pub body: String,
}

impl ApiClient {
    /// Connects with the first request.
    pub fn new(url: ServerUrl, app: App) -> Self {
        Self { url, app, trust: Trust::default(), connection: None }
    }

    /// The same, but believing others about who a server with TLS is.
    pub fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Publishes one event on up to 100 channels.
    ///
    /// # Errors
    /// [`ClientError`] when there is no answer; a refusal is an answer.
    pub async fn trigger(
        &mut self,
        channels: &[&str],
        event: &str,
        data: &str,
        except: Option<SocketId>,
    ) -> Result<Reply, ClientError> {
        let mut body = json!({ "name": event, "channels": channels, "data": data });
        if let Some(socket_id) = except {
            body["socket_id"] = Value::String(socket_id.to_string());
        }
        self.post("/events", &body).await
    }

    /// A signed GET. `path`: below `/apps/ID`, percent-encoded, as `/channels`.
    ///
    /// # Errors
    /// [`ClientError`] when there is no answer.
    pub async fn get(&mut self, path: &str, params: &[(&str, &str)]) -> Result<Reply, ClientError> {
        self.request(Method::GET, path, params, Bytes::new()).await
    }

    /// A signed POST of JSON. `path`: below `/apps/ID`, percent-encoded, as `/events`.
    ///
    /// # Errors
    /// [`ClientError`] when there is no answer.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Reply, ClientError> {
        self.request(Method::POST, path, &[], body.to_string().into()).await
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        params: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, ClientError> {
        // Signed without the prefix, as pusher-http-php does; a proxy may have added it.
        let path = format!("/apps/{}{path}", self.app.id);
        let query = signed_query(&self.app, method.as_str(), &path, params, &body, unix_us() / 1_000_000);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}?{query}", self.url.prefix()))
            .header(HOST, self.url.authority())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let exchange = async {
            let response = self.ready().await?.send_request(request).await?;
            Ok(Reply { status: response.status(), body: text_of(response).await? })
        };
        let reply = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await;
        if !matches!(reply, Ok(Ok(_))) {
            // Whatever is left of the exchange must not be taken for the next one's answer.
            self.connection = None;
        }
        reply.map_err(|_| ClientError::Timeout(REQUEST_TIMEOUT))?
    }

    /// The kept connection, or a new one where the server has ended that.
    async fn ready(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ClientError> {
        let kept = match self.connection.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let connection = match kept {
            Some(kept) => kept,
            None => {
                let (requests, connection) = handshake(TokioIo::new(connect(&self.url, &self.trust).await?)).await?;
                // Ends when the sender is dropped, or the server ends it; either shows in the next request.
                tokio::spawn(connection);
                requests
            }
        };
        Ok(self.connection.insert(connection))
    }
}

/// Opens a connection to a server, and shakes hands where it speaks TLS.
pub(super) async fn connect(url: &ServerUrl, trust: &Trust) -> Result<Stream, ClientError> {
    let address = || url.authority();
    let connecting = async {
        let stream = TcpStream::connect((url.host(), url.port())).await;
        let stream = stream.map_err(|source| ClientError::Connect { address: address(), source })?;
        stream.set_nodelay(true)?;
        if !url.is_tls() {
            return Ok(Stream::Left(stream));
        }
        tls::secure(trust, url.host(), stream).await.map_err(|source| ClientError::Tls { address: address(), source })
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
}

/// The whole body of an answer, as far as it is text.
pub(super) async fn text_of(response: Response<Incoming>) -> Result<String, ClientError> {
    let body = Limited::new(response.into_body(), REPLY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| ClientError::Protocol(format!("its answer cannot be read: {error}")))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
