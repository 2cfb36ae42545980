//! A small disk that really hangs: ext4 in a file on a loop device, frozen. Writes to it block until it is thawed, and cannot be interrupted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const DISK_BYTES: u64 = 16 * 1024 * 1024;
/// Thawed and unmounted when dropped; drop it before whoever writes to it.
pub struct Disk {
    at: PathBuf,
    guard: Option<Child>,
}

impl Disk {
    /// Mounts one below `dir`.
    ///
    /// # Errors
    ///
    /// What is missing: the right to mount, a loop device, `mkfs.ext4`.
    pub fn mount(dir: &Path) -> Result<Disk, String> {
        let (image, at) = (dir.join("disk.img"), dir.join("disk"));
        std::fs::create_dir_all(&at).map_err(|e| e.to_string())?;
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(DISK_BYTES).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Disk { at, guard: None })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on it hangs, until it is dropped or this process ends in whatever way.
    pub fn freeze(&mut self) -> Result<(), String> {
        let thaw = "cat >/dev/null; exec fsfreeze -u \"$0\"";
        let guard = Command::new("sh")
            .args(["-c", thaw])
            .arg(&self.at)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        self.guard = Some(guard.map_err(|e| e.to_string())?);
        run(Command::new("fsfreeze").arg("-f").arg(&self.at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // It waits for the end of its input, which this closes.
            let _ = guard.wait();
        }
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let said = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(e) => e.to_string(),
    };
    Err(format!("{}: {said}", command.get_program().display()))
}
