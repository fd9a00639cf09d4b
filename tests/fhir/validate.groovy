// HL7's own validator, as HAPI FHIR carries it, over resources:
//
//   validate.groovy R4|R5 CODE_SYSTEM_FOLDER FILE...
//
// One line per finding, `FILE<tab>SEVERITY<tab>PLACE<tab>MESSAGE`, and a last one `validated N`. What is wrong with a
// resource is a finding, not a failure of this program.
import ca.uhn.fhir.context.FhirContext
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport
import org.hl7.fhir.common.hapi.validation.support.PrePopulatedValidationSupport
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator

def context = args[0] == 'R4' ? FhirContext.forR4() : FhirContext.forR5()
def ours = new PrePopulatedValidationSupport(context)
new File(args[1]).listFiles().sort().findAll { it.name.startsWith('CodeSystem-') }.each {
    ours.addCodeSystem(context.newJsonParser().parseResource(it.text))
}
// The label of what artificial intelligence asserts is younger than the code systems that come with both releases.
def standard = new DefaultProfileValidationSupport(context)
def labels = standard.fetchCodeSystem('http://terminology.hl7.org/CodeSystem/v3-ObservationValue')
labels.addConcept().setCode('AIAST').setDisplay('Artificial Intelligence asserted')
ours.addCodeSystem(labels)
def chain = new ValidationSupportChain(
    ours,
    standard,
    new InMemoryTerminologyServerValidationSupport(context),
    new CommonCodeSystemsTerminologyService(context))
def validator = context.newValidator().registerValidatorModule(new FhirInstanceValidator(chain))
def files = args.drop(2)
files.each { file ->
    validator.validateWithResult(new File(file).text).messages.each {
        println([file, it.severity.code, it.locationString, it.message.replaceAll(/\s+/, ' ')].join('\t'))
    }
}
println "validated ${files.size()}"
