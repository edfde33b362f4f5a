//! The rotation policy that this server follows: a reviewed file, or the built-in one.

use std::path::PathBuf;

use kf_rotation::{MAX_POLICY_OCTETS, Policy, PolicyError};

use crate::{DataDir, FleetConfig, FleetError};

const FIELD: &str = "rotation_policy_file";

impl DataDir {
    /// Reads the rotation policy that the configuration names; the built-in one where it names none.
    ///
    /// # Errors
    /// [`FleetError::Local`] when the file cannot be read; [`FleetError::Invalid`] with every contradiction in it.
    pub fn rotation_policy(&self, config: &FleetConfig) -> Result<Policy, FleetError> {
        let Some(file) = &config.rotation_policy_file else { return Ok(Policy::default()) };
        let path = self.path().join(file);
        let text = read(&path)?;
        Policy::parse(&text).map_err(|error| {
            let mut problem = format!("{}: {error}", path.display());
            if let PolicyError::Contradictions(found) = &error {
                let list: Vec<_> = found.iter().map(ToString::to_string).collect();
                problem = format!("{problem}: {}", list.join("; "));
            }
            FleetError::invalid(
                FIELD,
                problem,
                "mend the file; `keyfleet policy check FILE` judges it without a server",
            )
        })
    }
}

fn read(path: &PathBuf) -> Result<String, FleetError> {
    let local = |problem: String| FleetError::Local { path: path.display().to_string(), problem };
    let length = std::fs::metadata(path).map_err(|error| local(error.to_string()))?.len();
    if usize::try_from(length).is_ok_and(|length| length <= MAX_POLICY_OCTETS) {
        std::fs::read_to_string(path).map_err(|error| local(error.to_string()))
    } else {
        Err(local(format!("larger than {MAX_POLICY_OCTETS} octets")))
    }
}
