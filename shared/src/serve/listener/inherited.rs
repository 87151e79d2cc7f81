//! Listening sockets that the process inherits by systemd's socket activation.
//!
//! Such a socket outlives the process. Connections that arrive while no process runs wait in its queue for the next
//! process. Source: `sd_listen_fds(3)`.

use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// The maximum number of sockets. It exceeds the number of purposes, so that an unknown socket gets an error with its
/// name.
const SOCKETS_MAX: usize = 32;

/// The name of the socket for clients, as `FileDescriptorName` of the unit.
pub const PUBLIC: &str = "public";
/// The name of the socket for metrics and health checks.
pub const ADMIN: &str = "admin";
/// The name of the socket for other gateways.
pub const PEERS: &str = "peers";

/// The listening sockets that the process inherited.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The socket for clients.
    pub public: Option<TcpListener>,
    /// The socket for metrics and health checks.
    pub admin: Option<TcpListener>,
    /// The socket for other gateways.
    pub peers: Option<TcpListener>,
}

/// The reason why an inherited socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// There are too many sockets.
    #[error("expected at most {SOCKETS_MAX} sockets")]
    TooMany,
    /// The name is not that of a purpose.
    #[error(
        "expected FileDescriptorName=public, admin or peers for each socket, not {name:?}; a single socket without a name is \
         the public one"
    )]
    Unknown {
        /// The name of the socket.
        name: String,
    },
    /// Two sockets have the same purpose.
    #[error(
        "expected one socket named {name}, not several; a socket with BindIPv6Only=both and no address accepts IPv4 and IPv6"
    )]
    Twice {
        /// The name of the socket.
        name: &'static str,
    },
    /// The socket is not a TCP socket.
    #[error("expected the socket {name} to be a TCP socket, like that of ListenStream=8080: {complaint}")]
    Kind {
        /// The name of the socket.
        name: &'static str,
        /// The error of the system.
        complaint: std::io::Error,
    },
    /// The socket is a connection.
    #[error("expected the socket {name} to be a listening socket, not a connection; set Accept=no")]
    Connected {
        /// The name of the socket.
        name: &'static str,
    },
}

impl Inherited {
    /// Takes the sockets that the environment announces for this process. `variables`: the environment.
    ///
    /// Must be called once, before the process starts other threads.
    ///
    /// # Errors
    /// [`InheritedError`].
    pub fn take(variables: &[(String, String)]) -> Result<Self, InheritedError> {
        let variable = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let is_for_this = match variable("LISTEN_PID") {
            None | Some("") => true,
            Some(id) => id.parse() == Ok(std::process::id()),
        };
        if is_for_this
            && variable("LISTEN_FDS").is_some_and(|count| count.parse().is_ok_and(|count: usize| count > SOCKETS_MAX))
        {
            return Err(InheritedError::TooMany);
        }
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for (index, name) in purposes(sockets.len(), variable("LISTEN_FDNAMES"))?.into_iter().enumerate() {
            let taken = sockets.take_tcp_listener(index);
            let taken = taken.map_err(|complaint| InheritedError::Kind { name, complaint })?;
            if taken.as_ref().is_some_and(|socket| !SockRef::from(socket).is_listener().unwrap_or(false)) {
                return Err(InheritedError::Connected { name });
            }
            *inherited.slot(name) = taken;
        }
        Ok(inherited)
    }

    /// Returns the names of the inherited sockets.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [(PUBLIC, &self.public), (ADMIN, &self.admin), (PEERS, &self.peers)];
        all.into_iter().filter(|(_, socket)| socket.is_some()).map(|(name, _)| name).collect()
    }

    fn slot(&mut self, name: &str) -> &mut Option<TcpListener> {
        match name {
            ADMIN => &mut self.admin,
            PEERS => &mut self.peers,
            _ => &mut self.public,
        }
    }
}

/// Returns the purposes of `count` sockets. `names`: the names of the sockets, separated by colons.
///
/// systemd names a socket after its unit if the unit sets no name.
fn purposes(count: usize, names: Option<&str>) -> Result<Vec<&'static str>, InheritedError> {
    let names: Vec<&str> =
        names.filter(|names| !names.is_empty()).map(|names| names.split(':').collect()).unwrap_or_default();
    let mut purposes: Vec<&'static str> = Vec::with_capacity(count);
    for index in 0..count {
        let name = names.get(index).copied().unwrap_or_default();
        let is_default = matches!(name, "" | "unknown") || name.ends_with(".socket");
        let purpose = match name {
            PUBLIC => PUBLIC,
            ADMIN => ADMIN,
            PEERS => PEERS,
            _ if is_default && count == 1 => PUBLIC,
            _ => return Err(InheritedError::Unknown { name: name.chars().take(64).collect() }),
        };
        if purposes.contains(&purpose) {
            return Err(InheritedError::Twice { name: purpose });
        }
        purposes.push(purpose);
    }
    Ok(purposes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select_the_purposes_of_sockets() {
        for (count, names, expected) in [
            (0, None, &[][..]),
            (1, None, &[PUBLIC]),
            (1, Some(""), &[PUBLIC]),
            (1, Some("unknown"), &[PUBLIC]),
            (1, Some("carillon-gateway@8080.socket"), &[PUBLIC]),
            (1, Some("admin"), &[ADMIN]),
            (3, Some("peers:public:admin"), &[PEERS, PUBLIC, ADMIN]),
        ] {
            assert_eq!(purposes(count, names).unwrap(), expected, "{names:?}");
        }
        for (count, names) in [(1, "clients"), (2, "public"), (2, "public:carillon.socket"), (2, ""), (1, "Public")] {
            assert!(matches!(purposes(count, Some(names)), Err(InheritedError::Unknown { .. })), "{names}");
        }
        assert!(matches!(purposes(2, Some("admin:admin")), Err(InheritedError::Twice { name: ADMIN })));
    }

    #[test]
    fn without_variables_no_socket_is_inherited() {
        assert_eq!(Inherited::take(&[]).unwrap().names(), [""; 0]);
        let many = [("LISTEN_FDS".to_owned(), "1000000000".to_owned())];
        assert!(matches!(Inherited::take(&many), Err(InheritedError::TooMany)));
        // The sockets are those of the parent process.
        let of_parent =
            [&many[..], &[("LISTEN_PID".to_owned(), std::os::unix::process::parent_id().to_string())]].concat();
        assert_eq!(Inherited::take(&of_parent).unwrap().names(), [""; 0]);
    }
}
