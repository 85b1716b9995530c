//! What Redis's own errors mean for a request.

use std::fmt;
use std::sync::Arc;

use ::redis::{RedisError, ServerError};

use crate::pipeline::service::AlreadyLogged;
use crate::{Error, ErrorKind};

/// Whether the server's error is a state that passes: the same request may work later.
pub(super) fn passes(code: Option<&str>) -> bool {
    matches!(
        code,
        Some(
            "LOADING"
                | "BUSY"
                | "MASTERDOWN"
                | "READONLY"
                | "OOM"
                | "MISCONF"
                | "NOREPLICAS"
                | "CLUSTERDOWN"
                | "TRYAGAIN"
                | "UNBLOCKED"
        )
    )
}

/// Whether the server's error is a matter of configuration: it stays until somebody changes something.
fn is_configuration(code: Option<&str>) -> bool {
    matches!(
        code,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE" | "MOVED" | "ASK" | "CROSSSLOT")
    )
}

fn kind(code: Option<&str>) -> ErrorKind {
    match code {
        _ if passes(code) => ErrorKind::Unavailable,
        _ if is_configuration(code) => ErrorKind::Config,
        _ => ErrorKind::Redis,
    }
}

/// What it means that no connection came about.
pub(super) fn connecting(error: &RedisError) -> ErrorKind {
    let refused = super::upstream::is_reply(error);
    // The only refusal without a code of its own that passes.
    let full = error.detail().is_some_and(|text| text.contains("max number of clients"));
    match is_distrust(error) || refused && !full && !passes(error.code()) {
        true => ErrorKind::Config,
        false => ErrorKind::Unavailable,
    }
}

/// Whether it is about certificates: what TLS says of one that it does not trust, or the server of ours.
pub(super) fn is_distrust(error: &RedisError) -> bool {
    io_error(error).is_some_and(|source| source.kind() == std::io::ErrorKind::InvalidData)
}

/// Whether the server says that it is a replica: the master is somewhere else now.
pub(super) fn is_demoted(error: &ServerError) -> bool {
    from_script(&line(error.code(), error.details())).0 == "READONLY"
}

/// A refusal in the server's own words; what else went wrong in the crate's.
pub(super) fn said(error: &RedisError) -> String {
    match error.code().filter(|_| super::upstream::is_reply(error)) {
        Some(code) => line(code, error.detail()).trim_end().to_owned(),
        None => error.to_string(),
    }
}

/// An error as the server sent it, without the mark of an error before it.
fn line(code: &str, details: Option<&str>) -> String {
    format!("{code} {}", details.unwrap_or_default())
}

/// The code and the text of a line with which the server refuses something. Where a script met the error, they
/// are those of the error that it met: before version 7 Redis puts the script's name and line before the code,
/// later versions put them behind the text. An error without a code of its own is an `ERR`, and its text keeps
/// whatever says where in the script it was.
pub(crate) fn from_script(line: &str) -> (&str, &str) {
    let line = line.trim_end();
    let (code, text) = line.split_once(' ').unwrap_or((line, ""));
    let (code, text) = match code {
        // Redis before 7 returns what `redis.pcall` gave as it is, and there no code comes first.
        _ if after_position(line).is_some() => ("ERR", line),
        "ERR" => (code, text),
        _ => return (code, before_position(text)),
    };
    let called = text
        .strip_prefix("Error running script (call to ")
        .and_then(|call| call.split_once("): "))
        .map_or(text, |(_, met)| met);
    let mut met = called;
    while let Some(rest) = after_position(met) {
        met = rest;
    }
    if met.len() < called.len() {
        let bare = met.strip_prefix('-').unwrap_or(met);
        let (code, text) = bare.split_once(' ').unwrap_or((bare, ""));
        if code != "ERR" && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return (code, before_position(text));
        }
        met = met.strip_prefix("ERR ").unwrap_or(met);
    }
    // No version gives the code of these where it is a script that may not do it.
    let refused = ["The user executing the script can't ", "ACL failure in script: "];
    match refused.iter().any(|refusal| met.starts_with(refusal)) {
        true => ("NOPERM", before_position(met)),
        false => (code, text),
    }
}

/// What follows `@user_script:1: `, `@user_script: 1: ` or `user_script:1: `.
fn after_position(text: &str) -> Option<&str> {
    let text = text.strip_prefix('@').unwrap_or(text).strip_prefix("user_script:")?;
    let text = text.strip_prefix(' ').unwrap_or(text);
    text.trim_start_matches(|digit: char| digit.is_ascii_digit()).strip_prefix(": ")
}

/// The text without ` script: <hash>, on @user_script:1.` of Redis 7 or ` script: on @user_script:1.` of Valkey.
fn before_position(text: &str) -> &str {
    match text.rsplit_once(" script: ") {
        Some((before, position)) if position.contains("on @user_script:") => before,
        _ => text,
    }
}

/// The code of an error line, such as `READONLY`, where a script met it, too.
pub(super) fn code(line: &[u8]) -> &str {
    std::str::from_utf8(line).map_or("", |line| from_script(line).0)
}

/// The error of a command that Redis refused with this line.
pub(crate) fn refusal(line: &[u8]) -> Error {
    let line = String::from_utf8_lossy(line);
    let (code, details) = from_script(&line);
    let text = format!("Redis: {code} {details}");
    let text = unquoted(&text).trim_end().to_owned() + what_would_do(Some(code));
    Error::new(kind(Some(code)), text)
}

/// The same error for one more session of a batch: its text has the causes, as these can be in one error alone.
pub(crate) fn copy(error: &Error) -> Error {
    match std::error::Error::source(error) {
        Some(source) if source.is::<AlreadyLogged>() => {
            Error::new(error.kind(), error.to_string()).with_source(AlreadyLogged)
        }
        _ => Error::new(error.kind(), format!("{error:?}")),
    }
}

/// To a command that it does not know, Redis quotes the arguments: a session's key, perhaps its values, and an
/// error ends in a log.
fn unquoted(text: &str) -> &str {
    text.split(", with args beginning with").next().unwrap_or_default()
}

/// For errors that a plain pool gets from a node of a cluster.
fn what_would_do(code: Option<&str>) -> &'static str {
    match code {
        Some("MOVED" | "ASK") => {
            "; this is one node of a cluster and another has the key: sessions go there with \
             RedisStore::on_cluster, other data with the cluster client of the redis crate"
        }
        Some("CROSSSLOT") => {
            "; the keys of one command must be in one slot of the cluster: give them the same {tag}"
        }
        _ => "",
    }
}

/// The pool's error as one of the `redis` crate, which its traits ask for. It comes back as what it was.
pub(super) fn as_redis_error(error: Error, timed_out: bool) -> RedisError {
    let kind = match timed_out {
        true => std::io::ErrorKind::TimedOut,
        false => std::io::ErrorKind::NotConnected,
    };
    RedisError::from(std::io::Error::new(kind, error))
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Error {
        let ours = io_error(&error)
            .and_then(|error| error.get_ref()?.downcast_ref::<Error>())
            .map(|ours| (ours.kind(), ours.to_string()));
        let (kind, text) = ours.unwrap_or_else(|| {
            let line = error.code().map(|code| line(code, error.detail()));
            let code = line.as_deref().map(|line| from_script(line).0);
            let kind = match super::upstream::is_reply(&error) {
                true => kind(code),
                false if error.is_io_error() => ErrorKind::Unavailable,
                false => ErrorKind::Redis,
            };
            // With the position in a script, which is the handler's own.
            (kind, format!("Redis: {}{}", said(&error), what_would_do(code)))
        });
        match unquoted(&text) {
            short if short.len() < text.len() => Error::new(kind, short),
            _ => Error::new(kind, text).with_source(error),
        }
    }
}

/// Redis sent more than these bytes in reply.
#[derive(Debug)]
pub(super) struct TooLarge(pub(super) usize);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} bytes in reply, the connection was closed", self.0)
    }
}

impl std::error::Error for TooLarge {}

impl TooLarge {
    pub(super) fn of(error: &RedisError) -> Option<&TooLarge> {
        io_error(error)?.get_ref()?.downcast_ref()
    }
}

fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    // What the crate gives as the cause is the `Arc` itself that it keeps it in.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    std::error::Error::source(error)?.downcast_ref::<Shared>()?.downcast_ref::<std::io::Error>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "c29ce57594abff2148ad821bb731a179d4fb3381";

    /// As Redis 5.0.6, 6.2.14 and 7.0.15 and Valkey 9.1.2 send them, raised by `redis.call`, returned by
    /// `redis.pcall` and raised by `error(returned.err)`. HASH stands for a hash, TEXT for the error's text.
    #[test]
    fn an_error_that_a_script_met_is_read_as_the_error_itself() {
        let passing = [
            "ERR Error running script (call to f_HASH): @user_script:2: @user_script: 2: -TEXT  ",
            "@user_script: 2: -TEXT  ",
            "ERR Error running script (call to f_HASH): @user_script:2: @user_script: 2: -TEXT",
            "@user_script: 2: -TEXT",
            "ERR Error running script (call to f_HASH): @user_script:2: user_script:2: @user_script: 1: -TEXT",
            "TEXT script: HASH, on @user_script:2.",
            "TEXT",
            "ERR user_script:2: TEXT script: HASH, on @user_script:2.",
            "TEXT script: on @user_script:2.",
            "ERR user_script:2: TEXT script: on @user_script:2.",
        ];
        let wrong_type = [
            "ERR Error running script (call to f_HASH): @user_script:2: TEXT ",
            "ERR Error running script (call to f_HASH): @user_script:2: TEXT",
            "TEXT",
            "ERR Error running script (call to f_HASH): @user_script:2: user_script:2: TEXT",
            "TEXT script: HASH, on @user_script:2.",
            "TEXT script: on @user_script:2.",
        ];
        let table: [(&str, &str, &[&str]); 5] = [
            ("OOM", "command not allowed when used memory > 'maxmemory'.", &passing),
            ("READONLY", "You can't write against a read only replica.", &passing),
            ("NOREPLICAS", "Not enough good replicas to write.", &passing),
            (
                "MISCONF",
                "Redis is configured to save RDB snapshots, but it is currently not able to persist on \
                 disk. Commands that may modify the data set are disabled, because this instance is \
                 configured to report errors during writes if RDB snapshotting fails \
                 (stop-writes-on-bgsave-error option). Please check the Redis logs for details about \
                 the RDB error.",
                &passing,
            ),
            ("WRONGTYPE", "Operation against a key holding the wrong kind of value", &wrong_type),
        ];
        for (code, text, lines) in table {
            for line in lines {
                let line = line.replace("HASH", HASH).replace("TEXT", &format!("{code} {text}"));
                assert_eq!(from_script(&line), (code, text), "{line}");
            }
        }
    }

    #[test]
    fn a_command_that_a_script_may_not_use_is_a_matter_of_permissions() {
        let user = "The user executing the script can't run this command or subcommand";
        let key = "The user executing the script can't access at least one of the keys mentioned in the \
                   command arguments";
        let acl = "ACL failure in script: User u has no permissions to run the 'hset' command";
        for (text, line) in [
            (
                user,
                "ERR Error running script (call to f_HASH): @user_script:2: @user_script: 2: TEXT",
            ),
            (
                key,
                "ERR Error running script (call to f_HASH): @user_script:1: @user_script: 1: TEXT",
            ),
            (user, "@user_script: 2: TEXT"),
            (user, "ERR TEXT script: HASH, on @user_script:2."),
            (key, "ERR TEXT script: HASH, on @user_script:2."),
            (user, "ERR TEXT"),
            (user, "ERR user_script:2: ERR TEXT script: HASH, on @user_script:2."),
            (acl, "ERR TEXT script: on @user_script:2."),
            (acl, "ERR TEXT"),
            (acl, "ERR user_script:2: ERR TEXT script: on @user_script:2."),
        ] {
            let line = line.replace("HASH", HASH).replace("TEXT", text);
            assert_eq!(from_script(&line), ("NOPERM", text), "{line}");
        }
    }

    #[test]
    fn an_error_without_a_code_of_its_own_keeps_its_position() {
        for text in [
            "Error running script (call to f_HASH): @user_script:2: user_script:2: attempt to index local 'x' (a nil value)",
            "Error running script (call to f_HASH): @user_script:1: ERR value is not an integer or out of range",
            "Error running script (call to f_HASH): @user_script:1: Script killed by user with SCRIPT KILL...",
            "Error running script (call to f_HASH): @err_handler_def:9: err_handler_def:9: attempt to concatenate local 'err' (a table value)",
            "Error compiling script (new function): user_script:1: unexpected symbol near 'return'",
            "user_script:2: attempt to index local 'x' (a nil value) script: HASH, on @user_script:2.",
            "value is not an integer or out of range script: HASH, on @user_script:1.",
            "Unknown command called from script script: on @user_script:1.",
            "DB index is out of range",
        ] {
            let text = text.replace("HASH", HASH);
            assert_eq!(from_script(&format!("ERR {text}")), ("ERR", text.as_str()));
        }
        let returned = "@user_script: 1: Unknown Redis command called from Lua script";
        assert_eq!(from_script(returned), ("ERR", returned));
    }

    #[test]
    fn an_error_outside_scripts_stays_as_it_is() {
        for (code, text) in [
            ("NOSCRIPT", "No matching script. Please use EVAL."),
            (
                "BUSY",
                "Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            ),
            ("NOPERM", "User u has no permissions to run the 'hset' command"),
            ("EXECABORT", "Transaction discarded because of previous errors."),
            ("MOVED", "3999 127.0.0.1:6381"),
            (
                "ERR",
                "unknown command `NOSUCH`, with args beginning with: `@user_script:1: -READONLY`,",
            ),
        ] {
            assert_eq!(from_script(&format!("{code} {text}")), (code, text));
        }
        assert_eq!(from_script("WHATEVER"), ("WHATEVER", ""));
        assert_eq!(from_script(""), ("", ""));
    }

    #[test]
    fn each_error_means_what_the_guide_says() {
        let page = include_str!("../guide/logs.md").split_once("# Why Redis fails").unwrap().1;
        let mut codes = 0;
        for row in page.lines().filter(|row| row.starts_with("| `")) {
            let (text, rest) = row.trim_start_matches("| ").split_once(" | ").unwrap();
            let expected = match rest.split_once(" | ").unwrap().0 {
                "503" => ErrorKind::Unavailable,
                _ => ErrorKind::Config,
            };
            let is_code = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
            for code in text.split(", ").map(|word| word.trim_matches('`')).filter(is_code) {
                let met = ::redis::make_extension_error(code.to_owned(), Some("why".to_owned()));
                assert_eq!(connecting(&met), expected, "{code} when connecting");
                // Which Redis says at no other time.
                if code != "DENIED" {
                    assert_eq!(
                        refusal(format!("{code} why").as_bytes()).kind(),
                        expected,
                        "{code}"
                    );
                }
                codes += 1;
            }
        }
        assert!(codes > 10, "{codes}");
    }
}
