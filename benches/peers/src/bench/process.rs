//! Processes, and what the system says about them.

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;

/// How long a process may take to be ready, and to end once it is asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with this one, and with this value.
pub struct Process(Child);

impl Process {
    /// Its output goes to the file `log`.
    pub fn start(command: &mut Command, log: &str) -> Result<Process, Failure> {
        let program = command.get_program().to_owned();
        // Ends it also where this program is killed.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "TERM"]).arg(&program).args(command.get_args());
        for (name, value) in command.get_envs() {
            value.map(|value| tied.env(name, value));
        }
        if let Some(folder) = command.get_current_dir() {
            tied.current_dir(folder);
        }
        let log = fs::File::create(log)?;
        let child = tied.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Process(child.map_err(|error| format!("{program:?} cannot be started: {error}"))?))
    }

    /// Waits until `ready` says so; an error where the process ends before that.
    pub fn wait_until(&mut self, what: &str, ready: impl Fn() -> bool) -> Result<(), Failure> {
        let started = Instant::now();
        while !ready() {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("{what} has ended: {status}").into());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{what} does not answer").into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The process and all that it has started.
    fn family(&self) -> Vec<u32> {
        let mut parents = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok())
                && let Some(fields) = stat(pid)
            {
                parents.insert(pid, fields[1] as u32);
            }
        }
        let mut family = vec![self.0.id()];
        let mut next = 0;
        while let Some(&at) = family.get(next) {
            let children = parents.iter().filter(|(_, parent)| **parent == at);
            family.extend(children.map(|(pid, _)| *pid));
            next += 1;
        }
        family
    }

    /// The time on a core that it and all that it has started have had.
    pub fn used(&self) -> Duration {
        // Fields 14 to 17 of /proc/PID/stat: in user mode and in the kernel; the same of children that have ended.
        let ticks: u64 = self
            .family()
            .into_iter()
            .filter_map(stat)
            .map(|fields| fields[11..15].iter().sum::<u64>())
            .sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// KiB of memory. Of several processes, what they share counts once.
    pub fn memory(&self) -> u64 {
        let family = self.family();
        let (file, field) =
            if family.len() == 1 { ("status", "VmRSS:") } else { ("smaps_rollup", "Pss:") };
        let of = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        family.into_iter().filter_map(of).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked, so that it ends the workers that it has.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fields of /proc/PID/stat behind the name: the state is 0, and the parent 1.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = &text[text.rfind(')')? + 2..];
    let fields: Vec<u64> =
        fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() > 15).then_some(fields)
}

/// A port that is free now.
pub fn free_port() -> Result<u16, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
