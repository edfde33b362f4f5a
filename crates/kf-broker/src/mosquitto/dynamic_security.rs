//! Commands of the dynamic security plugin, as JSON on `$CONTROL/dynamic-security/v1`. Pure.

use serde_json::{Value, json};

use crate::BrokerError;

/// What a device may do at the broker. `{device}` stands for its name; a role per device keeps devices apart, because
/// the plugin of 2.0 knows no `%u` in its patterns. Without any topic no role is touched. Roles that somebody else gave a
/// device are never touched: a hold that is released must not have cost it anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTopics {
    /// Topics it may publish to.
    pub publish: Vec<String>,
    /// Topic filters it may subscribe to and receive from.
    pub subscribe: Vec<String>,
}

impl Default for DeviceTopics {
    fn default() -> Self {
        Self { publish: vec!["devices/{device}/#".to_owned()], subscribe: vec!["devices/{device}/#".to_owned()] }
    }
}

impl DeviceTopics {
    const fn manages_roles(&self) -> bool {
        !self.publish.is_empty() || !self.subscribe.is_empty()
    }
}

/// A batch of commands and the answers that are as good as success.
pub(crate) struct Batch {
    pub(crate) commands: Vec<Value>,
    tolerated: &'static [&'static str],
}

fn role_of(device_name: &str) -> String {
    format!("device-{device_name}")
}

/// Makes a client, and its role where roles are ours, or makes them again what they should be. Other roles of the client
/// stay. A session that is open is closed by the plugin whenever roles change; the device comes straight back.
pub(crate) fn allow(device_name: &str, topics: &DeviceTopics) -> Batch {
    let mut commands = Vec::new();
    if topics.manages_roles() {
        let (role, acls) = (role_of(device_name), acls_of(device_name, topics));
        commands.push(json!({"command": "createRole", "rolename": role, "acls": acls}));
        commands.push(json!({"command": "modifyRole", "rolename": role, "acls": acls}));
        commands.push(json!({"command": "createClient", "username": device_name}));
        // Adding a role that is there already is an "Internal error" in 2.0.11.
        commands.push(json!({"command": "removeClientRole", "username": device_name, "rolename": role}));
        commands.push(json!({"command": "addClientRole", "username": device_name, "rolename": role}));
    } else {
        commands.push(json!({"command": "createClient", "username": device_name}));
    }
    commands.push(json!({"command": "enableClient", "username": device_name}));
    Batch { commands, tolerated: &["Role already exists", "Client already exists"] }
}

fn acls_of(device_name: &str, topics: &DeviceTopics) -> Vec<Value> {
    let rule = |acl_type: &str, pattern: &String| json!({"acltype": acl_type, "topic": pattern.replace("{device}", device_name), "allow": true});
    let DeviceTopics { publish, subscribe } = topics;
    let send = publish.iter().map(|pattern| rule("publishClientSend", pattern));
    let receive = subscribe.iter().map(|pattern| rule("publishClientReceive", pattern));
    let filter = subscribe.iter().map(|pattern| rule("subscribePattern", pattern));
    send.chain(receive).chain(filter).collect()
}

/// Disables the client, which closes its sessions, and takes its role away where that is ours. A client unknown to the
/// plugin is made first: it could be connected all the same, because its name comes from its certificate.
pub(crate) fn bar(device_name: &str, topics: &DeviceTopics) -> Batch {
    let mut commands = vec![json!({"command": "createClient", "username": device_name})];
    if topics.manages_roles() {
        let role = role_of(device_name);
        commands.push(json!({"command": "removeClientRole", "username": device_name, "rolename": role}));
    }
    commands.push(json!({"command": "disableClient", "username": device_name}));
    Batch { commands, tolerated: &["Client already exists", "Role not found"] }
}

/// Asks for something small: its answer shows that the broker has been around its loop.
pub(crate) fn barrier() -> Batch {
    Batch { commands: vec![json!({"command": "getDefaultACLAccess"})], tolerated: &[] }
}

impl Batch {
    /// The message to publish; every command carries the number that its answer repeats.
    pub(crate) fn message(&self, correlation: u64) -> String {
        let commands: Vec<Value> = self
            .commands
            .iter()
            .map(|command| {
                let mut command = command.clone();
                if let Some(fields) = command.as_object_mut() {
                    fields.insert("correlationData".to_owned(), Value::from(correlation.to_string()));
                }
                command
            })
            .collect();
        json!({ "commands": commands }).to_string()
    }

    /// Checks the answers.
    pub(crate) fn check(&self, responses: &[Value]) -> Result<(), BrokerError> {
        let refused = |reason: String| BrokerError::Refused { command: "dynamic-security", reason };
        if responses.len() != self.commands.len() {
            return Err(refused(format!("{} answers to {} commands", responses.len(), self.commands.len())));
        }
        for (command, response) in self.commands.iter().zip(responses) {
            let name = command.get("command").and_then(Value::as_str).unwrap_or_default();
            if response.get("command").and_then(Value::as_str) != Some(name) {
                return Err(refused(format!("the answer to `{name}` belongs to another command")));
            }
            match response.get("error").and_then(Value::as_str) {
                Some(error) if !self.tolerated.contains(&error) => {
                    return Err(refused(format!("{name}: {}", error.chars().take(200).collect::<String>())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The number that an answer repeats, and the answers.
pub(crate) fn parse_response(payload: &[u8]) -> Option<(u64, Vec<Value>)> {
    let document: Value = serde_json::from_slice(payload).ok()?;
    let responses = document.get("responses")?.as_array()?.clone();
    let correlation = responses.first()?.get("correlationData")?.as_str()?.parse().ok()?;
    Some((correlation, responses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_topics_of_its_own_only() {
        let batch = allow("meter-1", &DeviceTopics::default());
        let text = batch.message(7);
        assert!(text.contains("devices/meter-1/#"));
        assert!(!text.contains("{device}"));
        assert_eq!(text.matches("\"correlationData\":\"7\"").count(), batch.commands.len());
    }

    #[test]
    fn roles_that_somebody_else_manages_are_left_alone() {
        let none = DeviceTopics { publish: Vec::new(), subscribe: Vec::new() };
        for batch in [allow("meter-1", &none), bar("meter-1", &none)] {
            let text = batch.message(1);
            assert!(text.contains("ableClient") && !text.contains("ole"), "{text}");
        }
    }

    #[test]
    fn an_answer_counts_only_when_every_command_succeeded() {
        let batch = bar("meter-1", &DeviceTopics::default());
        let good = r#"{"responses":[{"command":"createClient","error":"Client already exists","correlationData":"1"},
            {"command":"removeClientRole","error":"Role not found","correlationData":"1"},{"command":"disableClient","correlationData":"1"}]}"#;
        let (correlation, responses) = parse_response(good.as_bytes()).unwrap();
        assert_eq!(correlation, 1);
        assert!(batch.check(&responses).is_ok());
        let refused = good
            .replace("{\"command\":\"disableClient\"", "{\"command\":\"disableClient\",\"error\":\"Internal error\"");
        assert!(batch.check(&parse_response(refused.as_bytes()).unwrap().1).is_err());
        assert!(batch.check(&responses[..2]).is_err());
        for bad in ["", "[]", "{}", r#"{"responses":[]}"#, r#"{"responses":[{"command":"x"}]}"#] {
            assert!(parse_response(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
