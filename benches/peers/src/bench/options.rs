//! What is to be measured.

use std::fmt;
use std::str::FromStr;

use crate::Failure;

pub const USAGE: &str = "\
benches/run.sh [OPTIONS]: sessions and plain requests on this crate and its peers, side by side.

  --quick                 one round of fewer cells, in about four minutes
  --only LIST             of plain,read,change,create and the extra tables waiting,apart,sleeping,idle,
                          record,commands,replicas,file
  --servers LIST          of ours,memory,axum,actix,tiny_http,express,flask,bottle
  --connections LIST      such as 1,8,32,256 (the default)
  --distance LIST         of near,far: Redis on this machine, or half a millisecond away
  --rounds N              how many; 5 unless told otherwise
  --seconds N             how long each cell takes in each round; 1 unless told otherwise

A full run takes about 35 minutes. What it measures is in target/peers/: results.tsv (medians), rounds.tsv (each
single measurement), report.md, sessions.svg.
Extra tables: waiting: plain requests while 64 others read sessions from a Redis 20 ms away; apart: the same with the 64
at the next of the servers; sleeping: plain requests while 100 others sleep a second each; idle: memory with 10,000 idle
connections; record: bytes of Redis for a session; commands: what each kind of request sends to Redis; replicas: ours
with replicas(1), on this machine; file: sessions in SQLite, ours and axum's.";

macro_rules! names {
    ($(#[$doc:meta])* $name:ident: $($variant:ident = $text:literal),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),+];

            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Failure;

            fn from_str(text: &str) -> Result<$name, Failure> {
                let known = || [$($text),+].join(", ");
                Self::ALL.iter().copied().find(|each| each.name() == text)
                    .ok_or_else(|| format!("unknown: {text}; known: {}", known()).into())
            }
        }
    };
}

names!(Case: Plain = "plain", Read = "read", Change = "change", Create = "create");
names!(Distance: Near = "near", Far = "far");
names!(Extra: Waiting = "waiting", Apart = "apart", Sleeping = "sleeping", Idle = "idle", Record = "record",
    Commands = "commands", Replicas = "replicas", File = "file");
names!(
    /// In the order of all tables.
    Server: Ours = "ours", Memory = "memory", Axum = "axum", Actix = "actix", TinyHttp = "tiny_http",
    Express = "express", Flask = "flask", Bottle = "bottle"
);

impl Server {
    /// The peers that this crate is to beat.
    pub const ASYNC: [Server; 2] = [Server::Axum, Server::Actix];

    /// Those that have `/sleep`.
    pub const SLEEPING: [Server; 3] = [Server::Ours, Server::Axum, Server::Actix];
}

pub struct Options {
    pub cases: Vec<Case>,
    pub extras: Vec<Extra>,
    pub servers: Vec<Server>,
    pub connections: Vec<usize>,
    pub distances: Vec<Distance>,
    pub rounds: usize,
    pub seconds: u64,
    pub quick: bool,
}

impl Options {
    /// `None` where help is asked for.
    pub fn parse(arguments: &[&str]) -> Result<Option<Options>, Failure> {
        let quick = arguments.contains(&"--quick");
        let mut options = Options {
            cases: Case::ALL.to_vec(),
            extras: Extra::ALL.to_vec(),
            servers: Server::ALL.to_vec(),
            connections: if quick { vec![1, 32, 256] } else { vec![1, 8, 32, 256] },
            distances: Distance::ALL.to_vec(),
            rounds: if quick { 1 } else { 5 },
            seconds: 1,
            quick,
        };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            if ["--help", "-h"].contains(&argument) {
                return Ok(None);
            }
            if argument == "--quick" {
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{argument}: unknown, or a value is missing"))?;
            match argument {
                "--only" => {
                    (options.cases, options.extras) = (Vec::new(), Vec::new());
                    for name in value.split(',') {
                        match (name.parse(), name.parse()) {
                            (Ok(case), _) => options.cases.push(case),
                            (_, Ok(extra)) => options.extras.push(extra),
                            (Err(cases), Err(extras)) => {
                                return Err(format!("{cases}; {extras}").into());
                            }
                        }
                    }
                }
                "--servers" => options.servers = list(value)?,
                "--connections" => options.connections = list(value)?,
                "--distance" => options.distances = list(value)?,
                "--rounds" => options.rounds = value.parse()?,
                "--seconds" => options.seconds = value.parse()?,
                _ => return Err(format!("unknown option {argument}; --help lists them").into()),
            }
        }
        if options.rounds == 0 || options.seconds == 0 || options.connections.contains(&0) {
            return Err("rounds, seconds and connections are at least 1".into());
        }
        Ok(Some(options))
    }

    /// Whether a cell is part of a quick run: near all, far those with 32 connections.
    pub fn includes(&self, distance: Distance, connections: usize) -> bool {
        !self.quick || distance == Distance::Near || connections == 32
    }
}

fn list<T: FromStr>(text: &str) -> Result<Vec<T>, Failure>
where
    Failure: From<T::Err>,
{
    text.split(',').map(|name| Ok(name.parse()?)).collect()
}
