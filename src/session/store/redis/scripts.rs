//! The Lua scripts: each operation is one of them, and so one atomic step.

use std::sync::LazyLock;

use redis::Cmd;

use super::Layout;

/// The scripts of one layout.
pub(super) struct Scripts {
    pub(super) load: Script,
    /// Loads, and takes over what the former layout has.
    pub(super) load_former: Script,
    pub(super) save: Script,
    pub(super) increment: Script,
    pub(super) take: Script,
    pub(super) set_if_absent: Script,
}

/// One script and its name in Redis.
pub(super) struct Script {
    text: String,
    hash: String,
    pub(super) answer: Answer,
}

/// What a script answers where all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Record,
    Saved,
    Number,
    Values,
}

const ARGUMENTS: &str = include_str!("lua/arguments.lua");
const RECORD: &str = include_str!("lua/record.lua");

static DEFAULT: LazyLock<Scripts> = LazyLock::new(|| {
    let update = include_str!("lua/update_default.lua");
    let layout = include_str!("lua/default_layout.lua");
    Scripts::new(include_str!("lua/load_default.lua"), layout, update)
});
static BOTTLE_SESSION: LazyLock<Scripts> = LazyLock::new(|| {
    let load = include_str!("lua/load_bottle_session.lua");
    Scripts::new(load, include_str!("lua/bottle_session_layout.lua"), "")
});

impl Scripts {
    pub(super) fn of(layout: Layout) -> &'static Scripts {
        match layout {
            Layout::Default => &DEFAULT,
            Layout::BottleSession => &BOTTLE_SESSION,
        }
    }

    fn new(load: &str, layout: &str, update: &str) -> Scripts {
        let loading = |parts: &[&str]| Script::new(parts, Answer::Record);
        let script = |shortcut: &str, operation: &str, answer| {
            Script::new(&[shortcut, ARGUMENTS, layout, RECORD, operation], answer)
        };
        let on_record = |operation: &str, answer| script("", operation, answer);
        Scripts {
            load: loading(&[load]),
            load_former: loading(&[include_str!("lua/move_former.lua"), load]),
            save: script(update, include_str!("lua/save.lua"), Answer::Saved),
            increment: on_record(include_str!("lua/increment.lua"), Answer::Number),
            take: on_record(include_str!("lua/take.lua"), Answer::Values),
            set_if_absent: on_record(include_str!("lua/set_if_absent.lua"), Answer::Number),
        }
    }
}

impl Script {
    fn new(parts: &[&str], answer: Answer) -> Script {
        let text = parts.concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Script { text, hash, answer }
    }

    /// The start of a call by hash, which the arguments follow.
    pub(super) fn by_hash(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len()).arg(keys);
        command
    }

    /// The same call with the script's text, after which Redis knows its hash.
    pub(super) fn by_text(&self, by_hash: &Cmd) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(&self.text);
        for argument in by_hash.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }
}
