//! Which files are open, and whether they still are where they were.

use std::path::{Path, PathBuf};

/// What tells a file from all others: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

/// The file, its log and the index of that. Whoever has opened them goes on to write to them after they were removed,
/// and all that is lost.
pub(super) struct Files([(PathBuf, FileId); 3]);

impl Files {
    /// Those of an open file: by the path that was asked for, which may be a link, and by the one that it leads to.
    pub(super) fn of(path: &Path, file: &Path) -> Option<Files> {
        let [_, log, index] = with_log(file);
        let known = |path: PathBuf| identify(&path).map(|id| (path, id));
        Some(Files([known(path.to_owned())?, known(log)?, known(index)?]))
    }

    pub(super) fn main(path: &Path) -> Option<FileId> {
        identify(path)
    }

    pub(super) fn file(&self) -> FileId {
        self.0[0].1
    }

    /// The first that is not there any more, or another.
    pub(super) fn lost(&self) -> Option<&Path> {
        let is_lost = |(path, id): &&(PathBuf, FileId)| identify(path) != Some(*id);
        self.0.iter().find(is_lost).map(|(path, _)| path.as_path())
    }
}

/// The file and the two that SQLite keeps beside it.
pub(super) fn with_log(file: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

/// Asks for the inode alone. Who asks for times too, as `std::fs::metadata` does, makes the next write give the file a
/// time of its own (multigrain timestamps: ext4, XFS and others since Linux 6.13), and each fsync write the inode as well.
#[cfg(target_os = "linux")]
fn identify(path: &Path) -> Option<FileId> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(there) => Some(FileId(makedev(there.stx_dev_major, there.stx_dev_minor), there.stx_ino)),
        // Before Linux 4.11, and where a filter of system calls refuses what it does not know.
        Err(rustix::io::Errno::NOSYS) => identify_with_times(path),
        Err(_) => None,
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
use identify_with_times as identify;

#[cfg(unix)]
fn identify_with_times(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let there = std::fs::metadata(path).ok()?;
    Some(FileId(there.dev(), there.ino()))
}

/// Where the system says no more, whether it is there.
#[cfg(not(unix))]
fn identify(path: &Path) -> Option<FileId> {
    path.exists().then_some(FileId(0, 0))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_with_its_times_and_without() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, missing] =
            ["file", "link", "missing"].map(|name| folder.path().join(name));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(identify(&file).is_some());
        for path in [&file, &link, &missing, &PathBuf::from("/proc/self/stat")] {
            assert_eq!(identify(path), identify_with_times(path), "{}", path.display());
        }
        assert_eq!(identify(&link), identify(&file));
        assert_eq!(identify(&missing), None);
    }
}
