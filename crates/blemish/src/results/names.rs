use std::collections::HashSet;
use std::path::Path;

use super::plain;

/// Gives each picture of a run a file name of its own that stays in its folder, whatever the labels and paths hold.
#[derive(Debug, Default)]
pub struct Names {
    taken: HashSet<String>,
}

impl Names {
    /// `<kind>_<stem>`, with a number after it where that is taken; the same pictures in the same order get the same names.
    pub fn unique(&mut self, kind: &str, path: &Path) -> String {
        let wanted = plain(&format!("{kind}_{}", path.file_stem().unwrap_or_default().to_string_lossy()));
        let mut name = wanted.clone();
        // Some systems do not tell A from a.
        for number in 2.. {
            if self.taken.insert(name.to_lowercase()) {
                break;
            }
            name = format!("{wanted}_{number}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stay_in_the_folder() {
        let mut names = Names::default();
        let pictures =
            [("good", "a/1.png"), ("good", "b/1.png"), ("Good", "c/1.png"), ("good", "d/1_2.png"), ("../../x", "/1")];
        let given: Vec<String> = pictures.iter().map(|(kind, path)| names.unique(kind, Path::new(path))).collect();
        assert_eq!(given[..3], ["good_1", "good_1_2", "Good_1_3"]);
        let folded: HashSet<String> = given.iter().map(|n| n.to_lowercase()).collect();
        assert_eq!(folded.len(), given.len());
        assert!(given.iter().all(|n| !n.contains(['/', '\\']) && !n.starts_with('.')), "{given:?}");
    }
}
