//! Sends signed requests to the HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shared::app::App;
use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use shared::protocol::SocketId;
use shared::serve::tls::trust::Trust;

use crate::connection::{connect, text_of};
use crate::error::ClientError;
use crate::url::ServerUrl;

/// The timeout of a whole request, the same as in Laravel.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of the HTTP API for one app. It sends one request at a time and reuses its connection.
#[derive(Debug)]
pub struct ApiClient {
    url: ServerUrl,
    app: App,
    trust: Trust,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// A response of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 for a successful request.
    pub status: StatusCode,
    /// JSON for a successful request, otherwise usually plain text.
    pub body: String,
}

impl ApiClient {
    /// Creates a client. The first request connects.
    pub fn new(url: ServerUrl, app: App) -> Self {
        Self { url, app, trust: Trust::default(), connection: None }
    }

    /// Sets the trusted CA certificates.
    pub fn trusting(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Publishes one event on up to 100 channels.
    ///
    /// # Errors
    /// [`ClientError`] if there is no response. An error status is a response.
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

    /// Sends a signed GET. `path`: the part after `/apps/ID`, percent-encoded, for example `/channels`.
    ///
    /// # Errors
    /// [`ClientError`] if there is no response.
    pub async fn get(&mut self, path: &str, params: &[(&str, &str)]) -> Result<Reply, ClientError> {
        self.request(Method::GET, path, params, Bytes::new()).await
    }

    /// Sends a signed POST with JSON. `path`: the part after `/apps/ID`, percent-encoded, for example `/events`.
    ///
    /// # Errors
    /// [`ClientError`] if there is no response.
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
        // Signed without the prefix, like in pusher-http-php. A proxy can add a prefix.
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
            // The rest of this exchange must not be read as the response to the next request.
            self.connection = None;
        }
        reply.map_err(|_| ClientError::Timeout(REQUEST_TIMEOUT))?
    }

    /// Returns the open connection, or a new one if the server closed it.
    async fn ready(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ClientError> {
        let open = match self.connection.take() {
            Some(mut open) => open.ready().await.is_ok().then_some(open),
            None => None,
        };
        let connection = match open {
            Some(open) => open,
            None => {
                let (requests, connection) = handshake(TokioIo::new(connect(&self.url, &self.trust).await?)).await?;
                // Ends if the client is dropped or the server closes the connection. The next request finds out.
                tokio::spawn(connection);
                requests
            }
        };
        Ok(self.connection.insert(connection))
    }
}
