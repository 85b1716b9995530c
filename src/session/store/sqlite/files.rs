//! Which files are open, and whether they still are where they were.

use std::path::{Path, PathBuf};

/// What tells a file from all others: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

/// The file, its log and the index of that. Whoever has opened them goes on to write to them after they were removed,
/// and all that is lost.
pub(super) struct Files {
    file: (PathBuf, FileId),
    folder: Folder,
    beside: [(PathBuf, FileId); 2],
}

impl Files {
    /// Those of an open file: by the path that was asked for, which may be a link, and by the one that it leads to.
    pub(super) fn of(path: &Path, file: &Path) -> Option<Files> {
        let [_, log, index] = with_log(file);
        let folder = Folder::of(file);
        let known = |path: PathBuf| folder.identify(&path).map(|id| (path, id));
        let beside = [known(log)?, known(index)?];
        Some(Files { file: (path.to_owned(), identify(path)?), folder, beside })
    }

    pub(super) fn main(path: &Path) -> Option<FileId> {
        identify(path)
    }

    pub(super) fn file(&self) -> FileId {
        self.file.1
    }

    /// The first that is not there any more, or another.
    pub(super) fn lost(&self) -> Option<&Path> {
        let (path, id) = &self.file;
        if identify(path) != Some(*id) {
            return Some(path);
        }
        let is_lost = |(path, id): &&(PathBuf, FileId)| self.folder.identify(path) != Some(*id);
        self.beside.iter().find(is_lost).map(|(path, _)| path.as_path())
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

/// The folder of the file, open: what is in it is found without the way to it. Another folder in its place has another
/// file, or none.
struct Folder(#[cfg(target_os = "linux")] Option<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Folder {
    fn of(file: &Path) -> Folder {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Folder(file.parent().and_then(|folder| openat(CWD, folder, flags, Mode::empty()).ok()))
    }

    fn identify(&self, path: &Path) -> Option<FileId> {
        use std::os::fd::AsFd;
        match (&self.0, path.file_name()) {
            (Some(folder), Some(name)) => identify_in(folder.as_fd(), Path::new(name), path),
            _ => identify(path),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Folder {
    fn of(_: &Path) -> Folder {
        Folder()
    }

    fn identify(&self, path: &Path) -> Option<FileId> {
        identify(path)
    }
}

#[cfg(target_os = "linux")]
fn identify(path: &Path) -> Option<FileId> {
    identify_in(rustix::fs::CWD, path, path)
}

/// Asks for nothing but the inode. Whoever asks for the time of the log's last change has the system note that of the next
/// one to the nanosecond (Linux 6.13 and newer), which each fsync then has to write as well.
#[cfg(target_os = "linux")]
fn identify_in(folder: std::os::fd::BorrowedFd<'_>, name: &Path, path: &Path) -> Option<FileId> {
    use rustix::fs::{AtFlags, StatxFlags, makedev, statx};
    match statx(folder, name, AtFlags::empty(), StatxFlags::INO) {
        Ok(there) => Some(FileId(makedev(there.stx_dev_major, there.stx_dev_minor), there.stx_ino)),
        // Before Linux 4.11, and where a sandbox does not know it.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => identify_with_times(path),
        Err(_) => None,
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
fn identify(path: &Path) -> Option<FileId> {
    identify_with_times(path)
}

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
