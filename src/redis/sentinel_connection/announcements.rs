//! What a sentinel publishes and answers, read.

use crate::redis::failover::{Announced, Answered, Node};
use crate::redis::resp::Reply;

/// First signs of a failover, each from the sentinel that leads it.
pub(super) const SIGNS: [&str; 6] = [
    "+try-failover",
    "+elected-leader",
    "+failover-state-select-slave",
    "+selected-slave",
    "+failover-state-send-slaveof-noone",
    "+failover-state-wait-promotion",
];
pub(super) const ABORTS: [&str; 3] = [
    "-failover-abort-not-elected",
    "-failover-abort-no-good-slave",
    "-failover-abort-slave-timeout",
];
pub(super) const PROMOTED: &str = "+promoted-slave";
pub(super) const SWITCHED: &str = "+switch-master";

/// What a message on a channel says, and of which master.
pub(super) fn event(channel: &str, text: &str) -> Option<(String, Announced)> {
    let words: Vec<_> = text.split(' ').collect();
    let node = |host: &str, port: &str| Some((host.to_owned(), port.parse().ok()?));
    // `master NAME HOST PORT`, or a replica: `slave ITS-NAME HOST PORT @ NAME HOST PORT`.
    let (name, master) = match words[..] {
        [name, host, port, new_host, new_port] if channel == SWITCHED => {
            let switched = Announced::Switched(node(host, port)?, node(new_host, new_port)?);
            return Some((name.to_owned(), switched));
        }
        ["master", name, host, port, ..] => (name, node(host, port)?),
        [_, _, _, _, "@", name, host, port, ..] => (name, node(host, port)?),
        _ => return None,
    };
    let announced = match (channel, &words[..]) {
        (PROMOTED, [_, _, host, port, ..]) => Announced::Switched(master, node(host, port)?),
        _ if SIGNS.contains(&channel) => Announced::Failover(master),
        _ if ABORTS.contains(&channel) => Announced::Aborted(master),
        _ => return None,
    };
    Some((name.to_owned(), announced))
}

/// What `SENTINEL MASTER` says of a master that the other question has named.
pub(super) fn details(master: Node, reply: Reply<'_>) -> Answered {
    let mut answered = Answered { master, epoch: 0, leads_failover: false };
    // Where it may not be asked, the name alone has to do.
    let Reply::Array(mut words) = reply else { return answered };
    let (mut host, mut port, mut in_progress) = (None, None, false);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let value = value.bulk().and_then(text).unwrap_or_default();
        match name.bulk() {
            Some(b"ip") => host = Some(value),
            Some(b"port") => port = value.parse().ok(),
            Some(b"config-epoch") => answered.epoch = value.parse().unwrap_or(0),
            Some(b"flags") => {
                in_progress = value.split(',').any(|flag| flag == "failover_in_progress");
            }
            _ => {}
        }
    }
    // Once the replica is promoted, it is the one that is named.
    let is_old = host.zip(port).is_none_or(|old| old == answered.master);
    answered.leads_failover = in_progress && is_old;
    answered
}

pub(super) fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::resp::Replies;

    #[test]
    fn what_sentinels_publish_is_understood() {
        let node = |port: u16| ("10.0.0.1".to_owned(), port);
        let of = "@ sessions 10.0.0.1 1";
        let replica = format!("slave 10.0.0.1:2 10.0.0.1 2 {of}");
        for (channel, text, expected) in [
            ("+try-failover", "master sessions 10.0.0.1 1", Some(Announced::Failover(node(1)))),
            ("+selected-slave", replica.as_str(), Some(Announced::Failover(node(1)))),
            ("+promoted-slave", replica.as_str(), Some(Announced::Switched(node(1), node(2)))),
            (
                "+switch-master",
                "sessions 10.0.0.1 1 10.0.0.1 2",
                Some(Announced::Switched(node(1), node(2))),
            ),
            (
                "-failover-abort-not-elected",
                "master sessions 10.0.0.1 1",
                Some(Announced::Aborted(node(1))),
            ),
            ("+sdown", "master sessions 10.0.0.1 1", None),
            ("+try-failover", "master sessions 10.0.0.1", None),
            ("+try-failover", "master sessions 10.0.0.1 x", None),
            ("+promoted-slave", "", None),
        ] {
            let expected = expected.map(|announced| ("sessions".to_owned(), announced));
            assert_eq!(event(channel, text), expected, "{channel} {text}");
        }
    }

    #[test]
    fn a_failover_in_progress_counts_until_the_replica_is_promoted() {
        let node = |port: u16| ("10.0.0.1".to_owned(), port);
        let reply = |flags: &str| {
            let words = ["ip", "10.0.0.1", "port", "1", "flags", flags, "config-epoch", "7"];
            let words = words.map(|word| format!("${}\r\n{word}\r\n", word.len()));
            format!("*{}\r\n{}", words.len(), words.concat())
        };
        let in_progress = "master,failover_in_progress";
        for (named, flags, leads_failover) in
            [(1, "master", false), (1, in_progress, true), (2, in_progress, false)]
        {
            let bytes = reply(flags);
            let reply = Replies::of(bytes.as_bytes(), 1).next().unwrap();
            let expected = Answered { master: node(named), epoch: 7, leads_failover };
            assert_eq!(details(node(named), reply), expected);
        }
    }
}
