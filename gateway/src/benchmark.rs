//! A hub with many subscribers, for the broadcast benchmark. It requires the feature `benchmark`.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use shared::app::{App, Apps};
use shared::cluster::bus::MemoryBus;
use shared::cluster::envelope::Topic;
use shared::cluster::roster::MemoryRoster;
use shared::protocol::{ChannelName, SocketId};
use shared::serve::telemetry::metrics::Registry;

use crate::capacity::{Capacity, CapacityLimits};
use crate::config::Server;
use crate::connection::{Connection, Wire};
use crate::metrics::Metrics;
use crate::shard::burst::Burst;
use crate::shard::hub::{Hub, Part};
use crate::transport::Transport;

/// One channel of one shard. All of its subscribers write to the same socket.
pub struct Broadcast {
    hub: Hub,
    topic: Topic,
    frame: Bytes,
    burst: Burst,
    _peer: TcpStream,
}

impl Broadcast {
    /// Returns a channel with this number of subscribers and the frame that they receive.
    ///
    /// # Errors
    /// If there are not enough descriptors. Each subscriber needs one.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if the limits of `app` do not admit the subscribers.
    pub fn new(app: App, channel: ChannelName, subscribers: usize, frame: Bytes) -> io::Result<Self> {
        let topic = Topic::new(&app.id, &channel);
        let apps = Apps::new([app]).expect("one app is unique");
        let app = apps.iter().next().expect("the app").clone();
        let metrics = Metrics::new(&Registry::new(), &apps, subscribers, 0);
        let roster = MemoryRoster::new(MemoryBus::new());
        let limits =
            CapacityLimits { connections_max: subscribers, sockets_max: subscribers, shards: 1, is_clustered: false };
        let capacity = Capacity::new(limits, &Server::default(), &apps, roster, metrics.clone(), Arc::default());

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let peer = TcpStream::connect(listener.local_addr()?)?;
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let mut hub = Hub::default();
        for _ in 0..subscribers {
            let stream = tokio::net::TcpStream::from_std(stream.try_clone()?)?;
            let Ok(admission) = capacity.admit_over_quota(&app, Transport::WebSocket) else {
                panic!("the app does not admit {subscribers}")
            };
            let wire = Wire::Socket(stream);
            let connection = Connection::new(wire, SocketId::random(&mut rand::rng()), admission, 0);
            hub.subscribe(&topic, Rc::new(connection), &metrics);
        }
        Ok(Self { hub, topic, frame, burst: Burst::default(), _peer: peer })
    }

    /// Appends the frame for every subscriber. Returns the number of subscribers. Nothing is written.
    pub fn append(&mut self) -> usize {
        let frame = self.burst.frame(self.frame.clone());
        self.hub.broadcast(&self.topic, frame, None, Part::ALL, &mut self.burst).reached
    }

    /// Drops the appended frames, like a flush that has written everything.
    pub fn forget(&mut self) {
        self.burst.forget();
    }
}
