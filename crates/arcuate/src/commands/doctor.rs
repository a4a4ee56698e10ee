//! `arcuate doctor`: what this machine offers to training, in one look.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arcuate_ops::DeviceKind;
use arcuate_ops::cuda::{self, Missing};
use arcuate_ops::self_check::{self, Check};
use arcuate_record::{format_bytes, text_table};
use serde::Serialize;
use serde_json::json;

use super::runs::output;
use crate::memory::kibibytes;
use crate::{device, exit};

/// Programs that some work can use, with what for. None is needed for training.
const PROGRAMS: &[(&str, &str)] = &[
    ("python3", "tools/record_reference.py"),
    ("mpirun", "training on several processes"),
    ("espeak-ng", "phones from text"),
];
/// Flags of the processor that matter here, as `/proc/cpuinfo` names them.
const FLAGS: &[&str] = &[
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "neon",
    "asimd",
];
/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(3);

/// Show processor, memory, disk, devices, versions and optional programs of this machine.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate doctor
  arcuate doctor --json
  arcuate doctor --test-device cuda

`RAYON_NUM_THREADS` sets the number of threads; `ARCUATE_CPU` limits the instruction set to portable, avx2, avx512,
avx512_bf16 or amx.")]
pub(crate) struct Args {
    /// Compute every operation on this device and on the CPU and compare, instead. Exit code 0 if all agree, else 1.
    #[arg(long, value_name = "DEVICE", value_parser = device::kinds())]
    test_device: Option<DeviceKind>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Findings {
    version: &'static str,
    target: String,
    cpu: String,
    cpu_features: Vec<String>,
    kernels: String,
    threads: usize,
    cores: usize,
    memory_bytes: Option<u64>,
    memory_available_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    folder: PathBuf,
    disk_free_bytes: Option<u64>,
    folder_is_writable: bool,
    devices: Vec<String>,
    programs: Vec<Program>,
}

#[derive(Serialize)]
struct Program {
    name: &'static str,
    used_for: &'static str,
    path: Option<PathBuf>,
    version: Option<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(kind) = args.test_device {
        return test_device(kind, args.json);
    }
    let findings = look();
    if args.json { output::json(&findings) } else { output::text(&text(&findings)) }
}

/// Every operation on the device against the same one on the CPU.
fn test_device(kind: DeviceKind, as_json: bool) -> anyhow::Result<()> {
    let checks = self_check::check(&device::open(kind)?);
    let num_wrong = checks.iter().filter(|check| !check.holds()).count();
    if as_json {
        let lines: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "what": check.what, "difference": check.difference.as_ref().ok(), "tolerance": check.tolerance,
                    "failure": check.difference.as_ref().err(), "holds": check.holds(),
                })
            })
            .collect();
        output::json(&json!({"device": kind.describe(), "holds": num_wrong == 0, "operations": lines}))?;
    } else {
        let rows: Vec<Vec<String>> = checks.iter().map(row).collect();
        let table = text_table(&["operation", "relative L2", "tolerance", ""], &rows);
        output::text(&format!("{}\n{table}", kind.describe()))?;
    }
    if num_wrong > 0 {
        let message = format!("{num_wrong} of {} operations differ from the CPU", checks.len());
        return Err(exit::Coded { code: 1, message }.into());
    }
    Ok(())
}

fn row(check: &Check) -> Vec<String> {
    let (difference, verdict) = match &check.difference {
        Ok(difference) => (format!("{difference:.1e}"), if check.holds() { "ok" } else { "DIFFERS" }.to_owned()),
        Err(message) => ("-".to_owned(), format!("FAILED: {}", output::one_line(message, 200))),
    };
    vec![check.what.to_owned(), difference, format!("{:.0e}", check.tolerance), verdict]
}

fn look() -> Findings {
    let folder = std::env::current_dir().unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let meminfo = read("/proc/meminfo");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Findings {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
        cpu: cpu(),
        cpu_features: cpu_features(&cpuinfo),
        kernels: DeviceKind::Cpu.describe(),
        threads: threads_used(threads),
        cores: threads,
        memory_bytes: kibibytes(&meminfo, "MemTotal:"),
        memory_available_bytes: kibibytes(&meminfo, "MemAvailable:"),
        memory_limit_bytes: read("/sys/fs/cgroup/memory.max").trim().parse().ok(),
        disk_free_bytes: arcuate_train::free_bytes(&folder),
        folder_is_writable: is_writable(&folder),
        folder,
        devices: devices(),
        programs: PROGRAMS.iter().map(|(name, used_for)| program(name, used_for)).collect(),
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What the processor calls itself.
pub(crate) fn cpu() -> String {
    cpu_name(&read("/proc/cpuinfo"))
}

/// The value of the first line of `/proc/cpuinfo` that begins so.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn cpu_name(cpuinfo: &str) -> String {
    let name = field(cpuinfo, "model name").or_else(|| field(cpuinfo, "CPU part"));
    output::one_line(name.unwrap_or(std::env::consts::ARCH), 80)
}

fn cpu_features(cpuinfo: &str) -> Vec<String> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
    FLAGS.iter().filter(|flag| has(flag)).map(|flag| (*flag).to_owned()).collect()
}

/// What the thread pool will use: the variable it reads, else all processors.
fn threads_used(available: usize) -> usize {
    let set = std::env::var("RAYON_NUM_THREADS").ok().and_then(|value| value.parse().ok());
    set.filter(|threads| *threads > 0).unwrap_or(available)
}

fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".arcuate-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").is_ok();
    if written {
        let _ = std::fs::remove_file(&probe);
    }
    written
}

/// The CPU, the GPUs that are there, and what is missing for using them.
fn devices() -> Vec<String> {
    let mut devices = vec!["cpu: ready".to_owned()];
    match cuda::gpus() {
        Err(missing) => devices.push(format!("cuda: {missing}")),
        Ok((version, gpus)) => {
            let built = if cfg!(feature = "cuda") { Ok(()) } else { Err(Missing::Feature) };
            let ready = match built.and_then(|()| cuda::ready(device::toolkit().as_deref())) {
                Ok(()) => "ready".to_owned(),
                Err(missing) => missing.to_string(),
            };
            devices.extend(gpus.iter().map(|gpu| format!("cuda: {gpu}, CUDA {version}: {ready}")));
        }
    }
    devices
}

fn program(name: &'static str, used_for: &'static str) -> Program {
    let path = std::env::var_os("PATH")
        .and_then(|paths| std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file()));
    let version = path.as_deref().and_then(version);
    Program { name, used_for, path, version }
}

/// The first line that a program prints when asked for its version, if it answers in time.
fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let text = child.wait_with_output().ok()?.stdout;
    let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned();
    Some(output::one_line(&line, 80)).filter(|line| !line.is_empty())
}

fn text(findings: &Findings) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    lines.push(("arcuate", format!("{}, {}", findings.version, findings.target)));
    lines.push(("cpu", format!("{}, {} cores", findings.cpu, findings.cores)));
    lines.push(("", findings.cpu_features.join(" ")));
    lines.push(("kernels", findings.kernels.clone()));
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), format_bytes);
    let mut memory = format!("{}, {} available", bytes(findings.memory_bytes), bytes(findings.memory_available_bytes));
    if let Some(limit) = findings.memory_limit_bytes {
        memory.push_str(&format!(", limited to {}", format_bytes(limit)));
    }
    lines.push(("memory", memory));
    let writable = if findings.folder_is_writable { "" } else { ", NOT WRITABLE: runs cannot be kept here" };
    let disk = format!("{} free in {}{writable}", bytes(findings.disk_free_bytes), findings.folder.display());
    lines.push(("disk", disk));
    for (number, device) in findings.devices.iter().enumerate() {
        lines.push((if number == 0 { "devices" } else { "" }, device.clone()));
    }
    for (number, program) in findings.programs.iter().enumerate() {
        let found = match (&program.path, &program.version) {
            (Some(path), Some(version)) => format!("{version}, {}", path.display()),
            (Some(path), None) => path.display().to_string(),
            (None, _) => format!("not found (optional, for {})", program.used_for),
        };
        lines.push((if number == 0 { "programs" } else { "" }, format!("{:<10} {found}", program.name)));
    }
    let shown = lines.iter().filter(|(label, text)| !(label.is_empty() && text.is_empty()));
    shown.map(|(label, text)| format!("{label:<9}{text}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 fma amx_tile avx512\n";

    #[test]
    fn features_are_whole_words() {
        assert_eq!(cpu_name(CPUINFO), "Some CPU @ 2 GHz");
        assert_eq!(cpu_features(CPUINFO), ["avx2", "fma", "amx_tile"]);
        assert!(cpu_features("").is_empty());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(kibibytes("MemTotal:       16 kB\nMemAvailable:   8 kB\n", "MemAvailable:"), Some(8192));
        assert_eq!(kibibytes("", "MemTotal:"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        let program = program("no-such-program-here", "nothing");
        assert!(program.path.is_none() && program.version.is_none());
    }
}
