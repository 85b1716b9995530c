//! The arguments of a command.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ::redis::{Cmd, ToRedisArgs};

/// The arguments of a [`command`](crate::RedisConnection::command): one, a tuple, array or list of several, or `()` for
/// none. Anything that is [`ToRedisArgs`] goes by reference.
///
/// ```
/// use bottle_session::{App, RedisConnection, RedisPlugin, Result};
///
/// let mut app = App::new();
/// app.install(RedisPlugin::new())?;
/// app.post("/<name>", |rdb: &mut RedisConnection, name: &str| -> Result<()> {
///     let _: () = rdb.command("BGSAVE", ())?;
///     let _: u64 = rdb.command("SADD", ("names", name))?;
///     rdb.command("EXPIRE", ("names", 60))
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the arguments of a command",
    note = "arguments are text, numbers, tuples, lists and `()`; what is `ToRedisArgs` goes by reference"
)]
pub trait CommandArguments {
    /// Adds them to the command.
    #[doc(hidden)]
    fn add_to(self, command: &mut Cmd);
}

impl<T: ToRedisArgs, const N: usize> CommandArguments for [T; N] {
    fn add_to(self, command: &mut Cmd) {
        command.arg(&self);
    }
}

impl<'a, T: ?Sized> CommandArguments for &'a T
where
    &'a T: ToRedisArgs,
{
    fn add_to(self, command: &mut Cmd) {
        command.arg(self);
    }
}

impl CommandArguments for () {
    fn add_to(self, _: &mut Cmd) {}
}

macro_rules! arguments {
    ($([$($parameters:tt)*] $type:ty;)*) => {$(
        impl<$($parameters)*> CommandArguments for $type {
            fn add_to(self, command: &mut Cmd) {
                command.arg(self);
            }
        }
    )*};
}

arguments! {
    [] String; [] bool; [] f32; [] f64;
    [] i8; [] i16; [] i32; [] i64; [] isize;
    [] u8; [] u16; [] u32; [] u64; [] usize;
    [T: ToRedisArgs] Option<T>;
    [T: ToRedisArgs] Vec<T>;
    [K: ToRedisArgs, V: ToRedisArgs] BTreeMap<K, V>;
    [K: ToRedisArgs, V: ToRedisArgs] HashMap<K, V>;
    [T: ToRedisArgs] BTreeSet<T>;
    [T: ToRedisArgs] HashSet<T>;
    [A: ToRedisArgs] (A,);
    [A: ToRedisArgs, B: ToRedisArgs] (A, B);
    [A: ToRedisArgs, B: ToRedisArgs, C: ToRedisArgs] (A, B, C);
    [A: ToRedisArgs, B: ToRedisArgs, C: ToRedisArgs, D: ToRedisArgs] (A, B, C, D);
    [A: ToRedisArgs, B: ToRedisArgs, C: ToRedisArgs, D: ToRedisArgs, E: ToRedisArgs] (A, B, C, D, E);
    [A: ToRedisArgs, B: ToRedisArgs, C: ToRedisArgs, D: ToRedisArgs, E: ToRedisArgs, F: ToRedisArgs] (A, B, C, D, E, F);
}
