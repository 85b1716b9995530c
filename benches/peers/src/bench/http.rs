//! A client that asks for one thing at a time: to make sessions, and to check answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::{Failure, tls};

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client {
    port: u16,
    connection: Option<BufReader<Stream>>,
    tls: Option<Arc<ClientConfig>>,
}

enum Stream {
    Bare(TcpStream),
    Tls(Box<tls::load::Stream>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Bare(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Bare(stream) => stream.write(buffer),
            Stream::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Bare(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

pub struct Answer {
    pub status: u16,
    /// All that the answer sets, as a request sends them back.
    pub cookie: String,
    pub body: String,
}

impl Client {
    pub fn new(port: u16) -> Client {
        Client { port, connection: None, tls: None }
    }

    pub fn inside_tls(port: u16) -> Result<Client, Failure> {
        Ok(Client { tls: Some(tls::load::config()?), ..Client::new(port) })
    }

    pub fn get(&mut self, path: &str, cookie: &str) -> Result<Answer, Failure> {
        if let Some(connection) = self.connection.take()
            && let Ok(answer) = self.exchange(connection, path, cookie)
        {
            return Ok(answer);
        }
        // The server may have closed the connection after the last answer.
        let stream = match &self.tls {
            Some(config) => Stream::Tls(Box::new(tls::load::connect(self.port, config)?)),
            None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Stream::Bare(stream)
            }
        };
        self.exchange(BufReader::new(stream), path, cookie)
    }

    /// The body of the answer, which must be a 200.
    pub fn text(&mut self, path: &str, cookie: &str) -> Result<String, Failure> {
        let answer = self.get(path, cookie)?;
        if answer.status != 200 {
            return Err(format!("{path} answers {}: {}", answer.status, answer.body).into());
        }
        Ok(answer.body)
    }

    /// Logs in under a name; returns the session's cookie.
    pub fn create(&mut self, name: &str) -> Result<String, Failure> {
        let answer = self.get(&format!("/create/{name}"), "")?;
        if answer.status != 200 || answer.body != "created" || answer.cookie.is_empty() {
            return Err(format!("/create/{name} answers {}: {}", answer.status, answer.body).into());
        }
        Ok(answer.cookie)
    }

    fn exchange(
        &mut self,
        mut connection: BufReader<Stream>,
        path: &str,
        cookie: &str,
    ) -> Result<Answer, Failure> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", self.port);
        if !cookie.is_empty() {
            request += &format!("Cookie: {cookie}\r\n");
        }
        connection.get_mut().write_all((request + "\r\n").as_bytes())?;

        let status = line(&mut connection)?;
        let status = status.split(' ').nth(1).ok_or("no status in the answer")?.parse()?;
        let (mut length, mut stays, mut cookies) = (None, true, Vec::new());
        loop {
            let header = line(&mut connection)?;
            let Some((name, value)) = header.split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.parse()?),
                "connection" => stays = !value.eq_ignore_ascii_case("close"),
                "set-cookie" => cookies.push(value.split(';').next().unwrap_or("").to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length.ok_or("the answer does not say how long it is")?];
        connection.read_exact(&mut body)?;
        self.connection = stays.then_some(connection);
        Ok(Answer { status, cookie: cookies.join("; "), body: String::from_utf8(body)? })
    }
}

fn line(connection: &mut BufReader<Stream>) -> Result<String, Failure> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err("the server closed the connection".into());
    }
    Ok(line.trim_end().to_owned())
}
