//! As much of Redis as saves and loads need, in memory.

use std::collections::BTreeMap;

use super::*;

#[derive(Default)]
pub(super) struct Server {
    pub(super) keys: BTreeMap<Vec<u8>, Hash>,
    pub(super) now: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Hash {
    pub(super) fields: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) ends: Option<u64>,
}

impl Server {
    /// Carries out a request, which is one step: no operation sends more than one that writes.
    pub(super) fn run(&mut self, sent: &Sent) -> Vec<u8> {
        let (mut out, mut queued) = (Vec::new(), None::<Vec<Vec<&[u8]>>>);
        for command in sent.commands() {
            match (command[0], &mut queued) {
                (b"MULTI", _) => {
                    queued = Some(Vec::new());
                    out.extend(b"+OK\r\n");
                }
                (b"EXEC", _) => {
                    let commands = queued.take().expect("MULTI came before");
                    out.extend(format!("*{}\r\n", commands.len()).bytes());
                    commands.iter().for_each(|command| out.extend(self.command(command)));
                }
                (_, Some(queued)) => {
                    queued.push(command);
                    out.extend(b"+QUEUED\r\n");
                }
                _ => out.extend(self.command(&command)),
            }
        }
        self.keys.retain(|_, hash| !hash.fields.is_empty());
        out
    }

    fn command(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let number = |count: usize| format!(":{count}\r\n").into_bytes();
        let bulk = |value: Option<&Vec<u8>>| match value {
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
            None => b"$-1\r\n".to_vec(),
        };
        let (key, rest) = (words[1].to_vec(), &words[2..]);
        match words[0] {
            b"HSET" => {
                let hash = self.keys.entry(key).or_default();
                for pair in rest.chunks(2) {
                    hash.fields.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                number(rest.len() / 2)
            }
            b"HDEL" => {
                let hash = self.keys.get_mut(&key);
                number(hash.map_or(0, |hash| {
                    rest.iter().filter(|name| hash.fields.remove(**name).is_some()).count()
                }))
            }
            b"HMGET" => {
                let fields = self.keys.get(&key).map(|hash| &hash.fields);
                let values =
                    rest.iter().map(|name| bulk(fields.and_then(|fields| fields.get(*name))));
                [format!("*{}\r\n", rest.len()).into_bytes(), values.collect::<Vec<_>>().concat()]
                    .concat()
            }
            b"HGETALL" => {
                let fields =
                    self.keys.get(&key).map(|hash| hash.fields.clone()).unwrap_or_default();
                let pairs = fields
                    .iter()
                    .map(|(name, value)| [bulk(Some(name)), bulk(Some(value))].concat());
                let pairs: Vec<_> = pairs.collect();
                [format!("*{}\r\n", 2 * pairs.len()).into_bytes(), pairs.concat()].concat()
            }
            b"PEXPIRE" => {
                let time: u64 = std::str::from_utf8(rest[0]).unwrap().parse().unwrap();
                let Some(hash) = self.keys.get_mut(&key) else { return number(0) };
                hash.ends = Some(self.now + time);
                self.pass(0);
                number(1)
            }
            b"UNLINK" => number(usize::from(self.keys.remove(&key).is_some())),
            b"RESTORE" if self.keys.contains_key(&key) => {
                b"-BUSYKEY Target key name already exists.\r\n".to_vec()
            }
            b"RESTORE" => {
                let hash = self.keys.entry(key).or_default();
                for pair in dump::words(rest[1]).chunks(2) {
                    hash.fields.insert(pair[0].clone(), pair[1].clone());
                }
                hash.ends =
                    Some(self.now + String::from_utf8_lossy(rest[0]).parse::<u64>().unwrap());
                b"+OK\r\n".to_vec()
            }
            b"EVAL" if key == EMPTY.as_bytes() => {
                let hash = self.keys.entry(rest[1].to_vec()).or_default();
                let lives = hash.fields.contains_key(PROOF);
                if lives == (rest[2] == b"1") {
                    let own: &[&[u8]] = if lives { &[] } else { &[SAVED, REMEMBER] };
                    hash.fields.retain(|name, _| name[0] == 0 && !own.contains(&&name[..]));
                    if let Some(tombstone) = hash.fields.get(TOMBSTONE_FIELD).filter(|_| !lives) {
                        hash.ends = Some(parts(tombstone).1);
                    }
                }
                bulk(None)
            }
            b"EVAL" if key == DESTROY.as_bytes() => {
                let [key, now, tombstone, lifetime, mark] = rest[1..6] else {
                    panic!("five words")
                };
                let fields = self.keys.get(key).map(|hash| &hash.fields);
                let held = |name| fields.and_then(|fields| fields.get(name));
                match (held(PROOF), held(TOMBSTONE_FIELD)) {
                    (None, Some(tombstone)) => {
                        let (kind, until, next, text) = parts(tombstone);
                        let is_known = until.to_string().as_bytes() > now && !next.is_empty();
                        match kind {
                            b'e' if text == mark => number(1),
                            b'r' | b'g' if is_known => bulk(Some(&next.to_vec())),
                            _ => number(0),
                        }
                    }
                    (None, None) => {
                        self.keys.remove(key);
                        number(0)
                    }
                    (Some(_), _) => {
                        self.keys.remove(key);
                        self.leave(key, tombstone, lifetime);
                        number(1)
                    }
                }
            }
            b"EVAL" if key == ROTATE.as_bytes() => {
                let (from, to, owners) = (rest[1], rest[2], [rest[3], rest[4]]);
                let proof_of = |key| self.keys.get(key).and_then(|hash| hash.fields.get(PROOF));
                let Some(proof) = proof_of(from).cloned() else { return bulk(None) };
                assert!(proof.starts_with(owners[0]), "these are their own");
                if proof_of(to).is_some() {
                    return number(0);
                }
                let mut hash = self.keys.remove(from).expect("it has a proof");
                hash.fields.insert(PROOF.to_vec(), [owners[1], &proof[owners[0].len()..]].concat());
                self.keys.insert(to.to_vec(), hash);
                self.leave(from, rest[10], rest[11]);
                let mut replies = Vec::new();
                let mut calls = &rest[12..];
                while let [count, command @ ..] = calls {
                    let count: usize = std::str::from_utf8(count).unwrap().parse().unwrap();
                    let (name, arguments) = command[..count].split_first().unwrap();
                    replies.push(self.command(&[&[*name, to], arguments].concat()));
                    calls = &command[count..];
                }
                [format!("*{}\r\n", replies.len()).into_bytes(), replies.concat()].concat()
            }
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }

    fn leave(&mut self, key: &[u8], tombstone: &[u8], lifetime: &[u8]) {
        let ends = self.now + String::from_utf8_lossy(lifetime).parse::<u64>().unwrap();
        let fields = BTreeMap::from([(TOMBSTONE_FIELD.to_vec(), tombstone.to_vec())]);
        self.keys.insert(key.to_vec(), Hash { fields, ends: Some(ends) });
    }

    pub(super) fn pass(&mut self, time: u64) {
        self.now += time;
        let now = self.now;
        self.keys.retain(|_, hash| hash.ends.is_none_or(|ends| ends > now));
    }
}

/// Kind, end, next key and text of what a session has left.
pub(super) fn parts(tombstone: &[u8]) -> (u8, u64, &[u8], &[u8]) {
    let parts: Vec<_> = tombstone[1..].splitn(4, |byte| *byte == b'.').collect();
    (tombstone[0], record::number(parts[0]).unwrap(), parts[2], parts[3])
}
