//! Loss of power on a real file system: ext4 in a file, shut down by ioctl in the middle of writes.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use futures::executor::block_on;
use vr_core::{OpNumber, Opened, Storage, WriteBatch};
use vr_storage::{FileStorage, StoreOptions};

use crate::history::{Content, identity};

const LOSSES: u64 = 100;
const IMAGE_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES: u64 = 256 << 10;

/// Waits for lines that name a mount, and takes the power from each: nothing that is not on the
/// device by then, and no log of the file system either, will ever be
/// (`EXT4_IOC_SHUTDOWN`, `EXT4_GOING_FLAGS_NOLOGFLUSH`).
const SWITCH: &str = "
import fcntl, os, struct, sys
print('ready', flush=True)
for mount in sys.stdin:
    at = os.open(mount.strip(), os.O_RDONLY)
    fcntl.ioctl(at, 0x8004587d, struct.pack('I', 2))
    os.close(at)
    print('off', flush=True)
";

/// The power switch: a program in another language, because this one may not be unsafe.
struct Switch {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Switch {
    fn new() -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-S", "-c", SWITCH]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (orders, answers) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut switch = Self { child, orders, answers };
        (switch.answer() == "ready").then_some(switch)
    }

    /// Asks for the power of `mount` to be cut; does not wait until it is.
    fn cut(&mut self, mount: &Path) {
        writeln!(self.orders, "{}", mount.display()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file system in a file, mounted through a loop device that goes away with the mount.
struct Machine {
    image: PathBuf,
    mount: PathBuf,
}

impl Machine {
    fn new(dir: &Path) -> Result<Self, &'static str> {
        let machine = Self { image: dir.join("image"), mount: dir.join("mount") };
        fs::create_dir(&machine.mount).unwrap();
        fs::File::create(&machine.image).unwrap().set_len(IMAGE_BYTES).unwrap();
        if !done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&machine.image)) {
            return Err("mkfs.ext4 (Debian package e2fsprogs) cannot be run");
        }
        if !machine.start() {
            return Err("mounting a loop device needs root and ext4");
        }
        Ok(machine)
    }

    fn start(&self) -> bool {
        let mut mount = Command::new("mount");
        done(mount.args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    fn stop(&self) -> bool {
        done(Command::new("umount").arg(&self.mount))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Not mounted, unless a test failed or was skipped.
        let _ = self.stop();
    }
}

fn done(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// What some history wrote, and what it was writing when the power went.
struct Written {
    acknowledged: Content,
    /// All that may be found.
    possible: Vec<Content>,
}

/// Writes one batch after the other until storage says no; the power goes when `number` of this
/// life were acknowledged, while the next ones are written.
fn write_until_dark(
    mut opened: Opened,
    mut content: Content,
    number: u64,
    dark: impl FnOnce(),
) -> Written {
    let mut dark = Some(dark);
    for count in 0.. {
        if count == number
            && let Some(dark) = dark.take()
        {
            dark();
        }
        let batch = batch(&content, count);
        if block_on(opened.writer.write(batch.clone())).is_err() {
            let possible = content.after_crash_in(&batch);
            return Written { acknowledged: content, possible };
        }
        content.apply(&batch);
        assert!(count < 100_000, "the power never went");
    }
    unreachable!("there are enough numbers")
}

/// Mostly appends of one to four entries, now and then a promise, now and then a replaced suffix.
fn batch(content: &Content, count: u64) -> WriteBatch {
    let length = content.op_number();
    match (length * 31 + count * 17) % 19 {
        0 => content.promise(0),
        1 if length > 3 => content.cut(length - 2, &[300, 40]),
        other => {
            let entries = usize::try_from(other % 4).unwrap() + 1;
            let size = usize::try_from(other * 97 % 900).unwrap();
            content.append(&vec![size; entries])
        }
    }
}

fn open(mount: &Path) -> Opened {
    let options = StoreOptions::default().with_segment_bytes(SEGMENT_BYTES);
    let storage = FileStorage::new(mount.join("data")).with_options(options);
    block_on(Box::new(storage).open(&identity())).expect("a loss of power is no damage")
}

fn assert_readable(opened: &Opened, content: &Content) {
    let mut read = Vec::new();
    while read.len() < content.log.len() {
        let from = OpNumber(u64::try_from(read.len()).unwrap() + 1);
        let through = OpNumber(content.op_number());
        read.extend(block_on(opened.reader.entries(from, through, 1 << 20)).unwrap());
    }
    assert_eq!(read, content.log);
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    let dir = tempfile::tempdir().unwrap();
    let skip = |why: &str| {
        // Past the harness, which keeps to itself what a test that passes has printed.
        let said = format!("\nSKIP: {why}, so real loss of power is not tested\n");
        io::stderr().write_all(said.as_bytes()).unwrap();
    };
    let machine = match Machine::new(dir.path()) {
        Ok(machine) => machine,
        Err(why) => return skip(why),
    };
    let Some(mut switch) = Switch::new() else {
        return skip("there is no python3 to shut a file system down");
    };
    let mut content = Content::new();
    let mut partly = 0;
    for loss in 0..LOSSES {
        let opened = open(&machine.mount);
        let number = loss * 37 % 29;
        let written = write_until_dark(opened, content, number, || switch.cut(&machine.mount));
        assert_eq!(switch.answer(), "off", "EXT4_IOC_SHUTDOWN is refused");
        assert!(machine.stop() && machine.start(), "the image cannot be mounted again");
        let opened = open(&machine.mount);
        let found = written.possible.into_iter().rfind(|content| content.is(&opened.recovered));
        let acknowledged = written.acknowledged.op_number();
        content = found.unwrap_or_else(|| {
            let ops = opened.recovered.headers.len();
            panic!("loss {loss}: {acknowledged} ops were acknowledged, {ops} are found")
        });
        partly += u64::from(content != written.acknowledged);
        assert_readable(&opened, &content);
    }
    assert!(content.op_number() > LOSSES, "{} ops in {partly} torn lives", content.op_number());
}
