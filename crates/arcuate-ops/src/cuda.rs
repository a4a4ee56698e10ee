//! What the driver and the compiler of NVIDIA offer, asked before the tensor library touches them: it would panic.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::{Path, PathBuf};

/// The oldest CUDA that the driver must support; the same number stands in `.cargo/config.toml`.
const OLDEST: Version = Version { major: 12, minor: 8 };
/// Names under which the driver is looked for.
const DRIVERS: [&CStr; 2] = [c"libcuda.so.1", c"libcuda.so"];
/// Names under which the tensor library looks for NVRTC.
const COMPILERS: [&CStr; 2] = [c"libnvrtc.so", c"libnvrtc.so.12"];
/// Headers that compiled operations include; the second belongs to products on tensor cores.
const HEADERS: [&str; 2] = ["cuda_runtime.h", "crt/mma.h"];

/// A version of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Such as 12.
    pub major: u32,
    /// Such as 8.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// An NVIDIA GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Compute capability, such as 9.0.
    pub capability: Version,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{}, {memory:.0} GiB, compute capability {}", self.name, self.capability)
    }
}

/// What is missing for computing on a GPU, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The program was built without it.
    #[error("this program was built without NVIDIA GPUs; build it with `cargo build --release --features cuda`")]
    Feature,
    /// No driver.
    #[error("no NVIDIA driver was found (`libcuda.so.1` cannot be opened); install the driver of the GPU")]
    Driver,
    /// The driver does not work.
    #[error("the NVIDIA driver does not start: {0}; look at `nvidia-smi`")]
    WorkingDriver(String),
    /// The driver is too old.
    #[error("the NVIDIA driver supports CUDA {0}, and {OLDEST} or newer is needed; update the driver")]
    NewDriver(Version),
    /// No GPU.
    #[error("the NVIDIA driver sees no GPU; look at `nvidia-smi` and at the variable `CUDA_VISIBLE_DEVICES`")]
    Gpu,
    /// No compiler.
    #[error(
        "NVRTC, which compiles operations for the GPU, was not found (`libnvrtc.so` cannot be opened); install the CUDA toolkit, or the Python package `nvidia-cuda-nvrtc`, and put the folder that holds `libnvrtc.so` into `LD_LIBRARY_PATH`"
    )]
    Compiler,
    /// The compiler is newer than the driver.
    #[error(
        "NVRTC is of CUDA {compiler}, but the driver loads only what CUDA {driver} compiles; update the driver, or put an older NVRTC into `LD_LIBRARY_PATH`"
    )]
    OlderCompiler {
        /// Of the compiler.
        compiler: Version,
        /// Of the driver.
        driver: Version,
    },
    /// No headers.
    #[error("{}; {HEADERS_REMEDY}", no_header(.0.as_deref()))]
    Headers(Option<PathBuf>),
    /// Everything is there and yet the device does not start.
    #[error("the GPU does not start: {0}")]
    Start(String),
}

const HEADERS_REMEDY: &str =
    "install the CUDA toolkit and set `CUDA_PATH` to its folder (`docs/guide/gpu.md` says what else will do)";

fn no_header(path: Option<&Path>) -> String {
    match path {
        Some(path) => format!("the CUDA header `{}` is missing", path.display()),
        None => "the headers of CUDA were not found".to_owned(),
    }
}

/// A library that stays open for the life of the process.
struct Library(*mut c_void);

impl Library {
    fn open(names: &[&CStr]) -> Option<Self> {
        // SAFETY: the names end in zero; opening runs the initialisers of NVIDIA's own libraries and nothing of ours.
        #[allow(unsafe_code)]
        let open = |name: &&CStr| unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        names.iter().map(open).find(|library| !library.is_null()).map(Self)
    }

    /// A function of the library.
    ///
    /// # Safety
    /// `F` must be the type of the C function of this name.
    #[allow(unsafe_code)]
    unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>(), "`F` is a function pointer");
        // SAFETY: the library is never closed; a function pointer has the size of the symbol's address (asserted).
        unsafe {
            let symbol = libc::dlsym(self.0, name.as_ptr());
            (!symbol.is_null()).then(|| std::mem::transmute_copy::<*mut c_void, F>(&symbol))
        }
    }
}

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type GetNumber = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// `CUDA_ERROR_NO_DEVICE`
const NO_DEVICE: c_int = 100;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`
const CAPABILITY: [c_int; 2] = [75, 76];

/// What the driver supports, and the GPUs that it sees: at least one.
pub fn gpus() -> Result<(Version, Vec<Gpu>), Missing> {
    let driver = Library::open(&DRIVERS).ok_or(Missing::Driver)?;
    let lacks = || Missing::WorkingDriver("it lacks functions that every driver has".to_owned());
    // SAFETY: types and names are those of the driver's header `cuda.h`; every pointer is to a live local of that type.
    #[allow(unsafe_code)]
    unsafe {
        let said = |code: c_int| {
            let mut text: *const c_char = std::ptr::null();
            let get: Option<ErrorString> = driver.function(c"cuGetErrorString");
            match get.map(|get| get(code, &mut text)) {
                Some(0) if !text.is_null() => CStr::from_ptr(text).to_string_lossy().into_owned(),
                _ => format!("error {code}"),
            }
        };
        let check = |code: c_int| match code {
            0 => Ok(()),
            NO_DEVICE => Err(Missing::Gpu),
            code => Err(Missing::WorkingDriver(said(code))),
        };
        let init: Init = driver.function(c"cuInit").ok_or_else(lacks)?;
        check(init(0))?;
        let (mut number, mut count) = (0, 0);
        let get: GetNumber = driver.function(c"cuDriverGetVersion").ok_or_else(lacks)?;
        check(get(&mut number))?;
        let version = Version { major: number as u32 / 1000, minor: number as u32 % 1000 / 10 };
        let get: GetNumber = driver.function(c"cuDeviceGetCount").ok_or_else(lacks)?;
        check(get(&mut count))?;
        let device_of: GetDevice = driver.function(c"cuDeviceGet").ok_or_else(lacks)?;
        let name_of: GetName = driver.function(c"cuDeviceGetName").ok_or_else(lacks)?;
        let memory_of: GetMemory = driver.function(c"cuDeviceTotalMem_v2").ok_or_else(lacks)?;
        let attribute_of: GetAttribute = driver.function(c"cuDeviceGetAttribute").ok_or_else(lacks)?;
        let mut gpus = Vec::new();
        for index in 0..count {
            let (mut device, mut memory, mut name) = (0, 0, [0 as c_char; 256]);
            check(device_of(&mut device, index))?;
            check(name_of(name.as_mut_ptr(), 255, device))?;
            check(memory_of(&mut memory, device))?;
            let mut capability = [0; 2];
            for (number, attribute) in capability.iter_mut().zip(CAPABILITY) {
                check(attribute_of(number, attribute, device))?;
            }
            gpus.push(Gpu {
                name: CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned(),
                memory_bytes: memory as u64,
                capability: Version { major: capability[0] as u32, minor: capability[1] as u32 },
            });
        }
        if gpus.is_empty() { Err(Missing::Gpu) } else { Ok((version, gpus)) }
    }
}

/// The version of NVRTC.
pub fn compiler() -> Result<Version, Missing> {
    let library = Library::open(&COMPILERS).ok_or(Missing::Compiler)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: type and name are those of the header `nvrtc.h`; both pointers are to live locals.
    #[allow(unsafe_code)]
    let code = unsafe {
        let get: GetVersion = library.function(c"nvrtcVersion").ok_or(Missing::Compiler)?;
        get(&mut major, &mut minor)
    };
    if code == 0 { Ok(Version { major: major as u32, minor: minor as u32 }) } else { Err(Missing::Compiler) }
}

/// The folder of the headers: below `toolkit`, the value of `CUDA_PATH`, else where the tensor library looks too.
pub fn headers(toolkit: Option<&Path>) -> Result<PathBuf, Missing> {
    let usual = ["/usr/local/cuda", "/opt/cuda"].map(Path::new).into_iter().find(|path| path.exists());
    let packaged = || Path::new("/usr/bin/nvcc").exists().then_some(Path::new("/usr"));
    let folder = toolkit.or(usual).or_else(packaged).ok_or(Missing::Headers(None))?.join("include");
    match HEADERS.iter().map(|name| folder.join(name)).find(|path| !path.is_file()) {
        Some(missing) => Err(Missing::Headers(Some(missing))),
        None => Ok(folder),
    }
}

/// Driver, GPU, compiler and headers are there and fit each other.
pub fn ready(toolkit: Option<&Path>) -> Result<(), Missing> {
    let (driver, _) = gpus()?;
    fits(driver, compiler()?)?;
    headers(toolkit).map(drop)
}

fn fits(driver: Version, compiler: Version) -> Result<(), Missing> {
    if driver < OLDEST {
        return Err(Missing::NewDriver(driver));
    }
    // Compiled operations are PTX of the compiler's version, which an older driver refuses.
    if compiler > driver { Err(Missing::OlderCompiler { compiler, driver }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    #[test]
    fn driver_and_compiler_must_fit() {
        assert_eq!(fits(version(13, 0), version(13, 0)), Ok(()));
        assert_eq!(fits(version(13, 0), version(12, 9)), Ok(()));
        assert_eq!(fits(version(12, 4), version(12, 4)), Err(Missing::NewDriver(version(12, 4))));
        let wrong = fits(version(13, 0), version(13, 2)).expect_err("too new").to_string();
        assert!(wrong.starts_with("NVRTC is of CUDA 13.2, but the driver loads only what CUDA 13.0"), "{wrong}");
    }

    #[test]
    fn a_toolkit_without_headers_is_named() {
        let wrong = headers(Some(Path::new("/nowhere"))).expect_err("nothing there").to_string();
        assert!(wrong.starts_with("the CUDA header `/nowhere/include/cuda_runtime.h` is missing; install"), "{wrong}");
    }

    #[test]
    fn asking_never_panics() {
        for missing in [gpus().err(), compiler().err(), ready(None).err()].into_iter().flatten() {
            assert!(missing.to_string().contains(';'), "`{missing}` names no remedy");
        }
    }
}
