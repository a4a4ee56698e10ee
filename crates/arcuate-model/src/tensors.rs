//! Safetensors files: named tensors, memory-mapped for reading.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};

use crate::{Error, Result};

/// Named tensors of one file, or of the parts that an index file names.
pub struct TensorFile {
    parts: Vec<Part>,
}

struct Part {
    path: PathBuf,
    map: Mmap,
    start: usize,
    metadata: Metadata,
}

/// The values of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Values<T> {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Numbers in row-major order.
    pub data: Vec<T>,
}

impl TensorFile {
    /// Opens one file; what its header says is checked against its size before anything is read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { parts: vec![Part::open(path)?] })
    }

    /// Opens `model.safetensors` of a folder, or all parts that `model.safetensors.index.json` names.
    pub fn open_folder(dir: &Path) -> Result<Self> {
        let index = dir.join("model.safetensors.index.json");
        if !index.exists() {
            return Self::open(&dir.join("model.safetensors"));
        }
        let broken = |problem: String| Error::Config {
            path: index.clone(),
            problem,
            remedy: "copy the folder again from where it came".to_string(),
        };
        let text = std::fs::read_to_string(&index).map_err(Error::io(&index))?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(format!("is not JSON: {e}")))?;
        let map = json["weight_map"].as_object().ok_or_else(|| broken("has no `weight_map`".to_string()))?;
        let mut names: Vec<&str> = map.values().filter_map(|v| v.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if let Some(name) = names.iter().find(|n| n.contains(['/', '\\']) || n.contains("..")) {
            return Err(broken(format!("names the part `{name}` outside of the folder")));
        }
        Ok(Self { parts: names.iter().map(|n| Part::open(&dir.join(n))).collect::<Result<_>>()? })
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.parts.iter().flat_map(|p| p.metadata.tensors().into_keys().collect::<Vec<_>>()).collect();
        names.sort_unstable();
        names
    }

    /// Numbers in all tensors.
    pub fn num_elements(&self) -> f64 {
        let of = |p: &Part| {
            p.metadata.tensors().values().map(|i| i.shape.iter().map(|n| *n as f64).product::<f64>()).sum::<f64>()
        };
        self.parts.iter().map(of).sum()
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.parts.iter().find_map(|p| p.metadata.info(name)).map(|i| i.shape.clone())
    }

    fn bytes(&self, name: &str) -> Option<(&Part, Dtype, Vec<usize>, &[u8])> {
        self.parts.iter().find_map(|part| {
            let info = part.metadata.info(name)?;
            let (from, to) = info.data_offsets;
            Some((part, info.dtype, info.shape.clone(), &part.map[part.start + from..part.start + to]))
        })
    }

    /// A float tensor as f32; `None` when there is none of that name.
    pub fn f32(&self, name: &str) -> Result<Option<Values<f32>>> {
        let Some((part, dtype, shape, bytes)) = self.bytes(name) else { return Ok(None) };
        let data = match dtype {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(eight(b)) as f32).collect(),
            Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => return Err(part.broken(format!("`{name}` has the type {other:?}, which is not a float"))),
        };
        Ok(Some(Values { shape, data }))
    }

    /// An integer tensor; `None` when there is none of that name.
    pub fn i64(&self, name: &str) -> Result<Option<Values<i64>>> {
        let Some((part, dtype, shape, bytes)) = self.bytes(name) else { return Ok(None) };
        let data = match dtype {
            Dtype::I64 => bytes.chunks_exact(8).map(|b| i64::from_le_bytes(eight(b))).collect(),
            Dtype::I32 => {
                bytes.chunks_exact(4).map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
            }
            Dtype::BOOL | Dtype::U8 => bytes.iter().map(|b| i64::from(*b)).collect(),
            other => return Err(part.broken(format!("`{name}` has the type {other:?}, which is not an integer"))),
        };
        Ok(Some(Values { shape, data }))
    }
}

fn eight(b: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(b);
    out
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is read-only; a file that another program shortens meanwhile is outside of what can be guarded.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let broken = |problem: String| Error::Weights { path: path.to_path_buf(), problem };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| broken(reason(&e, &map)))?;
        let start = header + 8;
        let end = metadata.tensors().values().map(|i| i.data_offsets.1).max().unwrap_or(0);
        if start + end != map.len() {
            return Err(broken(format!("its header speaks of {} bytes, but it has {}", start + end, map.len())));
        }
        Ok(Self { path: path.to_path_buf(), map, start, metadata })
    }

    fn broken(&self, problem: String) -> Error {
        Error::Weights { path: self.path.clone(), problem }
    }
}

fn reason(error: &safetensors::SafeTensorError, map: &[u8]) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall => format!("it has {} bytes, fewer than a header needs", map.len()),
        E::HeaderTooLarge => "its header claims more than 100 MB".to_string(),
        E::InvalidHeaderLength => "it ends inside its header".to_string(),
        E::MetadataIncompleteBuffer => "its header and its size do not fit; it was probably cut off".to_string(),
        E::InvalidOffset(name) => format!("the places of `{name}` overlap or leave a gap"),
        other => other.to_string(),
    }
}

/// Writes float tensors to a file, names sorted, and syncs it.
pub fn write(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_string(), serde_json::json!({"format": "pt"}));
    let mut end = 0;
    for (name, (shape, data)) in tensors {
        let start = end;
        end += size_of_val(data.as_slice());
        header.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // The data begins at a multiple of 8.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for (_, data) in tensors.values() {
            if cfg!(target_endian = "little") {
                file.write_all(bytemuck::cast_slice(data))?;
            } else {
                data.iter().try_for_each(|x| file.write_all(&x.to_le_bytes()))?;
            }
        }
        file.into_inner()?.sync_all()
    };
    write().map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        [("a".to_string(), (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), ("b".to_string(), (vec![1], vec![7.0]))]
            .into()
    }

    fn open_bytes(bytes: &[u8]) -> Result<TensorFile> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, bytes).expect("writable");
        TensorFile::open(&path)
    }

    fn message(bytes: &[u8]) -> String {
        open_bytes(bytes).err().expect("an error").to_string()
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("x.safetensors");
        write(&path, &sample()).expect("written");
        let file = TensorFile::open(&path).expect("sound");
        assert_eq!(file.names(), ["a", "b"]);
        let a = file.f32("a").expect("float").expect("present");
        assert_eq!((a.shape, a.data), sample()["a"].clone());
        assert!(file.f32("c").expect("no error").is_none());
        assert!(file.i64("a").is_err());
    }

    #[test]
    fn same_tensors_give_the_same_bytes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str| {
            let path = dir.path().join(name);
            super::write(&path, &sample()).expect("written");
            std::fs::read(path).expect("readable")
        };
        assert_eq!(write("x"), write("y"));
    }

    #[test]
    fn truncated_files_are_named() {
        let good = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
        assert!(open_bytes(&good).is_ok());
        for len in [0, 4, 20, good.len() - 1] {
            assert!(message(&good[..len]).contains("not a sound safetensors file") || len == 0, "{len}");
        }
    }

    #[test]
    fn overlapping_offsets_are_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        assert!(message(&file(header, 12)).contains("overlap"));
    }

    #[test]
    fn huge_headers_are_refused_before_they_are_read() {
        let mut bytes = (200_000_000u64).to_le_bytes().to_vec();
        bytes.extend(vec![b' '; 100]);
        assert!(message(&bytes).contains("100 MB"));
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend(vec![b' '; 100]);
        assert!(message(&bytes).contains("100 MB"));
    }

    #[test]
    fn shapes_that_do_not_fit_their_bytes_are_refused() {
        assert!(open_bytes(&file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8)).is_err());
        let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#;
        assert!(open_bytes(&file(huge, 8)).is_err());
    }

    #[test]
    fn extra_bytes_at_the_end_are_refused() {
        assert!(open_bytes(&file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9)).is_err());
    }
}
