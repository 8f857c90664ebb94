//! `healthcheck`: the health check of an image without a shell or curl.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Settings;

/// Timeout of each step: connecting, sending and receiving.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Fails with 1 for any reason, including a setting, because Docker reserves 2.
pub fn run() -> anyhow::Result<()> {
    let settings = Settings::from_env().map_err(|error| anyhow::anyhow!("{error}"))?;
    let address = SocketAddr::new(reachable(settings.host), settings.port);
    let status = ask(address).with_context(|| format!("http://{address}/health"))?;
    anyhow::ensure!(status == "200", "http://{address}/health answers {status}");
    Ok(())
}

/// Returns the address by which this machine reaches a listener. One that listens on all addresses is reached by IPv4,
/// because many containers have no IPv6.
fn reachable(host: IpAddr) -> IpAddr {
    if host.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { host }
}

/// Returns the status of the response.
fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut start = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut start)?;
    let status = start.strip_prefix(b"HTTP/1.1 ").context("is not HTTP")?;
    Ok(String::from_utf8_lossy(status).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_the_loopback_of_ipv4() {
        let asked = |host: &str| reachable(host.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0"), "127.0.0.1");
        assert_eq!(asked("::"), "127.0.0.1");
        assert_eq!(asked("::1"), "::1");
        assert_eq!(asked("192.0.2.7"), "192.0.2.7");
        assert_eq!(asked("2001:db8::7"), "2001:db8::7");
    }
}
