//! Everything a run depends on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blemish_datasets::DataSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::Pipeline;
use crate::error::suggestion;
use crate::{Error, Result, registry};

/// Everything a run depends on. In a file, the settings of a model stand in a table of its name:
///
/// ```toml
/// model = "patchcore"
/// seed = 7
/// [data]
/// data = "datasets/MVTec"
/// category = "screw"
/// [patchcore]
/// coreset_ratio = 0.01
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The detector.
    pub model: String,
    /// The pictures.
    pub data: DataSpec,
    /// The only source of randomness.
    pub seed: u64,
    /// Threads; 0 for one a core. Results do not depend on it.
    pub threads: usize,
    /// `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one to use, else the CPU.
    pub device: String,
    /// `latency`: one picture at a time on all threads; `throughput`: stages overlap. Scores are the same.
    pub pipeline: Pipeline,
    /// Folder below which results are written.
    pub output: PathBuf,
    /// Share of good parts that may be rejected, for thresholds found from good pictures alone.
    pub false_reject_rate: f64,
    /// Smallest defect region reported, in pixels of the network input.
    pub min_region_area: usize,
    /// Whether pictures are written.
    pub pictures: bool,
    /// Whether the epoch of a training is chosen on the test pictures, as much published work does; such results flatter.
    pub best_on_test: bool,
    /// Whether unreadable training pictures are passed over.
    pub skip_unreadable: bool,
    /// Settings of the models, a table for each.
    #[serde(flatten)]
    pub params: BTreeMap<String, Value>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            model: "padim".to_owned(),
            data: DataSpec::default(),
            seed: 0,
            threads: 0,
            device: "auto".to_owned(),
            pipeline: Pipeline::default(),
            output: "results".into(),
            false_reject_rate: 0.05,
            min_region_area: 16,
            pictures: true,
            best_on_test: false,
            skip_unreadable: false,
            params: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads a YAML (`.yaml`, `.yml`) or TOML (`.toml`) file.
    ///
    /// # Errors
    /// [`Error::ConfigFile`] if it cannot be read, or [`Error::Setting`] for a key that does not exist (with the nearest
    /// one) or a value of the wrong type.
    pub fn read(path: &Path) -> Result<Config> {
        let bad = |why: String| Error::ConfigFile { path: path.to_path_buf(), why };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let value: Value = match path.extension().and_then(|e| e.to_str()) {
            Some("yaml" | "yml") => serde_yaml_ng::from_str(&text).map_err(|e| bad(e.to_string()))?,
            Some("toml") => toml::from_str(&text).map_err(|e| bad(e.to_string()))?,
            _ => return Err(bad("a configuration ends in .toml, .yaml or .yml".to_owned())),
        };
        match value {
            Value::Object(map) => Config::from_map(map).map_err(|e| match e {
                Error::Setting { key, why } => bad(format!("setting '{key}': {why}")),
                other => other,
            }),
            Value::Null => Ok(Config::default()),
            _ => Err(bad("a table of settings is wanted".to_owned())),
        }
    }

    fn from_map(map: Map<String, Value>) -> Result<Config> {
        let whole = Config::default().complete()?;
        check_keys("", &map, &whole)?;
        serde_json::from_value(Value::Object(map.clone())).map_err(|e| {
            // serde does not say which key; find the one that does not fit alone.
            let alone = |(key, value): (&String, &Value)| {
                serde_json::from_value::<Config>(json!({ key: value })).err().map(|e| (key.clone(), e.to_string()))
            };
            let (key, why) = map.iter().find_map(alone).unwrap_or_else(|| ("?".to_owned(), e.to_string()));
            Error::Setting { key, why }
        })
    }

    /// Checks the values that no single type can: before hours of work, not after.
    ///
    /// # Errors
    /// [`Error::Setting`] with what is possible.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.false_reject_rate) {
            let why = format!("{}; a share from 0 to below 1 is possible", self.false_reject_rate);
            return Err(Error::Setting { key: "false_reject_rate".to_owned(), why });
        }
        Ok(())
    }

    /// Sets one value; `key` has dots between tables, and a key without a table that the model knows is the model's.
    ///
    /// # Errors
    /// [`Error::Setting`] for a key that does not exist or a value that does not fit.
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let whole = self.complete()?;
        let mut parts: Vec<&str> = key.split('.').collect();
        if !whole.contains_key(parts[0]) {
            parts.insert(0, &self.model);
        }
        let model_table = registry::DETECTORS.iter().any(|entry| entry.kind == parts[0]);
        let mut wrapped = value;
        for part in parts.iter().skip(1).rev() {
            wrapped = json!({ *part: wrapped });
        }
        let mut one = Map::new();
        one.insert(parts[0].to_owned(), wrapped.clone());
        check_keys("", &one, &whole)?;
        if model_table {
            let table = self.params.entry(parts[0].to_owned()).or_insert_with(|| json!({}));
            merge(table, wrapped);
            self.model_params_of(parts[0]).map(|_| ())
        } else {
            let mut all = serde_json::to_value(&*self).map_err(|e| not_fitting(key, &e))?;
            merge(&mut all, Value::Object(one));
            *self = serde_json::from_value(all).map_err(|e| not_fitting(key, &e))?;
            Ok(())
        }
    }

    /// The settings of the chosen model: its defaults and what was set.
    ///
    /// # Errors
    /// [`Error::Unknown`] for the model, [`Error::Setting`] for a value that does not fit.
    pub fn model_params(&self) -> Result<Value> {
        self.model_params_of(&self.model)
    }

    fn model_params_of(&self, kind: &str) -> Result<Value> {
        let entry = registry::find(kind)?;
        let mut value = (entry.defaults)();
        let Some(own) = self.params.get(kind) else { return Ok(value) };
        let Value::Object(own) = own else {
            return Err(Error::Setting { key: kind.to_owned(), why: "a table is wanted".to_owned() });
        };
        for (key, setting) in own {
            merge(&mut value, json!({ key: setting }));
            if let Err(e) = (entry.params)(value.clone()) {
                return Err(Error::Setting { key: format!("{kind}.{key}"), why: e.to_string() });
            }
        }
        Ok(value)
    }

    /// All settings with their values in force, model tables included.
    ///
    /// # Errors
    /// As [`model_params`](Self::model_params).
    pub fn complete(&self) -> Result<Map<String, Value>> {
        let mut bare = self.clone();
        bare.params.clear();
        let Value::Object(mut map) = serde_json::to_value(&bare).map_err(|e| not_fitting("config", &e))? else {
            return Ok(Map::new());
        };
        for entry in registry::DETECTORS {
            map.insert(entry.kind.to_owned(), self.model_params_of(entry.kind)?);
        }
        Ok(map)
    }

    /// The settings in force as TOML, with the table of the chosen model only.
    ///
    /// # Errors
    /// As [`model_params`](Self::model_params).
    pub fn to_toml(&self) -> Result<String> {
        let mut map = self.complete()?;
        map.retain(|key, _| *key == self.model || registry::DETECTORS.iter().all(|entry| entry.kind != key));
        // TOML has no null: what is not set is left out.
        toml::to_string(&without_null(Value::Object(map)))
            .map_err(|e| Error::Setting { key: "config".to_owned(), why: e.to_string() })
    }
}

fn not_fitting(key: &str, e: &serde_json::Error) -> Error {
    Error::Setting { key: key.to_owned(), why: e.to_string() }
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_null(v))).collect())
        }
        other => other,
    }
}

/// Lays `new` over `old`, table by table.
fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                let place = old.entry(key.as_str()).or_insert(Value::Null);
                // The ways to resize exclude each other.
                if key == "resize" { *place = value } else { merge(place, value) }
            }
        }
        (old, new) => *old = new,
    }
}

/// Refuses keys that `whole` does not have. Only tables of settings are looked into, not values.
fn check_keys(path: &str, map: &Map<String, Value>, whole: &Map<String, Value>) -> Result<()> {
    let known: Vec<&str> = whole.keys().map(String::as_str).collect();
    for (key, value) in map {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(there) = whole.get(key) else {
            let why =
                format!("there is no such setting.{}\nSettings here: {}", suggestion(key, &known), known.join(", "));
            return Err(Error::Setting { key: full, why });
        };
        if let (Value::Object(inner), Value::Object(there)) = (value, there)
            && path.is_empty()
        {
            check_keys(&full, inner, there)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn yaml_and_toml_say_the_same() {
        let toml = "model = \"patchcore\"\nseed = 7\n[data]\ncategory = \"screw\"\n[patchcore]\ncoreset_ratio = 0.01\n";
        let yaml = "model: patchcore\nseed: 7\ndata:\n  category: screw\npatchcore:\n  coreset_ratio: 0.01\n";
        let (a, b) = (read("c.toml", toml).unwrap(), read("c.yaml", yaml).unwrap());
        assert_eq!(a, b);
        assert_eq!(a.model_params().unwrap()["coreset_ratio"], 0.01);
        assert_eq!(a.model_params().unwrap()["num_neighbors"], 9);
        let again = read("d.toml", &a.to_toml().unwrap()).unwrap();
        assert_eq!(again.complete().unwrap(), a.complete().unwrap());
        assert_eq!(read("e.yaml", "").unwrap(), Config::default());
    }

    #[test]
    fn slips_are_named() {
        for (text, words) in [
            ("sead = 1", ["sead", "Did you mean 'seed'?"]),
            ("[padim]\nbackbon = \"x\"", ["padim.backbon", "Did you mean 'backbone'?"]),
            ("[data]\ncategori = \"x\"", ["data.categori", "Did you mean 'category'?"]),
            ("seed = \"many\"", ["seed", "invalid type"]),
            ("model = padim", ["c.toml", "line"]),
        ] {
            let error = read("c.toml", text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(words.iter().all(|w| error.contains(w)), "{text}: {error}");
        }
        let error = read("c.toml", "[padim]\nepsilon = \"lots\"").unwrap().model_params().unwrap_err().to_string();
        assert!(error.contains("padim.epsilon"), "{error}");
        assert!(read("c.ini", "").unwrap_err().to_string().contains(".toml"));
    }

    #[test]
    fn values_out_of_range_are_refused_at_once() {
        assert!(Config::default().validate().is_ok());
        for (key, value) in
            [("false_reject_rate", json!(1.0)), ("false_reject_rate", json!(-0.1)), ("threads", json!(1_000_000))]
        {
            let mut config = Config::default();
            config.set(key, value).unwrap();
            let error = crate::Engine::new(&config).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(key) && error.contains("possible"), "{error}");
        }
        let nan = Config { false_reject_rate: f64::NAN, ..Config::default() };
        assert!(nan.validate().is_err());
    }

    #[test]
    fn flags_win() {
        let mut config = read("c.toml", "model = \"padim\"\n[padim]\nbackbone = \"resnet50\"\n").unwrap();
        config.set("backbone", json!("resnet18")).unwrap();
        config.set("layers", json!(["layer1"])).unwrap();
        config.set("data.category", json!("carpet")).unwrap();
        config.set("preprocess.resize", json!({"shorter_edge": {"size": 100}})).unwrap();
        assert_eq!(config.model_params().unwrap()["backbone"], "resnet18");
        assert_eq!(config.data.category.as_deref(), Some("carpet"));
        assert_eq!(config.model_params().unwrap()["preprocess"]["resize"], json!({"shorter_edge": {"size": 100}}));
        assert!(config.set("backbones", json!("x")).unwrap_err().to_string().contains("backbone"));
        assert!(config.set("epsilon", json!("x")).is_err());
    }
}
