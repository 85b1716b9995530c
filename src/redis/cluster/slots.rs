//! Slots: which one a key has, and which node has a slot.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ::redis::Value;

use crate::pipeline::operation::{Operation, Round};
use crate::redis::config::{Node, RedisConfig};

pub(super) const SLOTS: u16 = 16384;

/// Who has which slots: the last slot of each range, the first one, and the node.
#[derive(Default)]
pub(super) struct SlotMap(pub(super) BTreeMap<u16, (u16, Node)>);

impl SlotMap {
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        let (_, (first, node)) = self.0.range(slot..).next()?;
        (*first <= slot).then_some(node)
    }
}

/// Where `MOVED 3999 172.18.0.2:6379` leads: host and port as they are announced.
pub(super) fn target(line: &str, asked: &Node, config: &RedisConfig) -> Option<Node> {
    let (host, port) = line.rsplit(' ').next()?.rsplit_once(':')?;
    Some(reached(host, port.parse().ok()?, asked, config))
}

/// Where a node is reached that announces this. One that announces no name is where the one was asked that says so:
/// it has none (`?`), or it is not to say which (Redis, `cluster-preferred-endpoint-type`).
fn reached(host: &str, port: u16, asked: &Node, config: &RedisConfig) -> Node {
    match host {
        "" | "?" => (asked.0.clone(), port),
        host => config.reached((host.to_owned(), port)),
    }
}

/// The reply to `CLUSTER SLOTS`: first and last slot, the master, its replicas.
pub(super) fn read_slots(reply: Value, asked: &Node, config: &RedisConfig) -> Option<SlotMap> {
    let Value::Array(ranges) = reply else { return None };
    let mut map = SlotMap::default();
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            _ => "",
        };
        let node = reached(host, u16::try_from(*port).ok()?, asked, config);
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        map.0.insert(last, (first, node));
    }
    // A node that was sent away knows of no slots, and of no others who have them.
    (!map.0.is_empty()).then_some(map)
}

/// The key that an operation's next request is for.
pub(super) fn key(operation: &mut dyn Operation) -> Vec<u8> {
    let mut out = Vec::new();
    let mut round = Round::new(&mut out, SystemTime::now(), true);
    operation.request(&mut round);
    round.key.unwrap_or_default()
}

/// The slot of a key: CRC16 (XMODEM) of what stands in its first braces, or of all of it (Redis cluster
/// specification, "Hash tags").
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&rest[..close])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_that_redis_says() {
        // From CLUSTER KEYSLOT.
        for (key, expected) in [
            ("123456789", 12739),
            ("", 0),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("foo{}{bar}", 8363),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn a_slot_that_nobody_has_has_no_owner() {
        let node = ("a".to_owned(), 1);
        let map = SlotMap(BTreeMap::from([(20, (10, node.clone()))]));
        assert_eq!(
            [9, 10, 20, 21].map(|slot| map.owner(slot) == Some(&node)),
            [false, true, true, false]
        );
    }
}
