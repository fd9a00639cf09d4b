// Reads a JSON list of KafkaTopics and KafkaUsers into Strimzi's own classes and prints, as JSON, one list for each of
// what they did not know. They keep an unknown field aside and read an unknown operation as null, without an error.
import com.fasterxml.jackson.databind.ObjectMapper
import groovy.json.JsonOutput
import io.strimzi.api.kafka.model.common.UnknownPropertyPreserving
import io.strimzi.api.kafka.model.topic.KafkaTopic
import io.strimzi.api.kafka.model.user.KafkaUser

List<String> unknown(String path, value) {
    if (value instanceof Collection) {
        return value.withIndex().collectMany { inner, i -> inner == null ? ["$path[$i]"] : unknown("$path[$i]", inner) }
    }
    if (value instanceof Enum || !value?.class?.name?.startsWith('io.strimzi.')) {
        return []
    }
    def aside = value instanceof UnknownPropertyPreserving ? value.additionalProperties.keySet().collect { "$path.$it" } : []
    aside + value.metaPropertyValues
        .findAll { !(it.name in ['class', 'additionalProperties', 'metadata']) }
        .collectMany { unknown("$path.$it.name", it.value) }
}

def classes = [KafkaTopic: KafkaTopic, KafkaUser: KafkaUser]
def mapper = new ObjectMapper()
println JsonOutput.toJson(mapper.readTree(System.in).collect { document ->
    def kind = document.get('kind').asText()
    if (!document.get('apiVersion').asText().equals('kafka.strimzi.io/v1')) {
        return ['apiVersion']
    }
    try {
        return unknown(kind, mapper.treeToValue(document, classes[kind]))*.toString()
    } catch (com.fasterxml.jackson.core.JacksonException error) {
        return [error.originalMessage]
    }
})
