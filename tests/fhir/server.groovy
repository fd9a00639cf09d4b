// A real FHIR server for tests: HAPI FHIR's JPA server over an H2 database in a folder, on loopback.
//
//   server.groovy R4|R5 PORT FOLDER [KEYSTORE PASSWORD]
//
// With a key store (PKCS12) it speaks TLS only. It lives as long as its stdin: a test process that dies in any way closes
// its end of the pipe. Started again with the same folder it has what it had.
import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig
import ca.uhn.fhir.context.FhirContext
import ca.uhn.fhir.context.support.IValidationSupport
import ca.uhn.fhir.jpa.api.IDaoRegistry
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config
import ca.uhn.fhir.jpa.config.HapiJpaConfig
import ca.uhn.fhir.jpa.config.HibernatePropertiesProvider
import ca.uhn.fhir.jpa.config.r4.JpaR4Config
import ca.uhn.fhir.jpa.config.r5.JpaR5Config
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil
import ca.uhn.fhir.jpa.model.config.PartitionSettings
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig
import ca.uhn.fhir.rest.api.IResourceSupportedSvc
import ca.uhn.fhir.rest.server.RestfulServer
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory
import com.zaxxer.hikari.HikariDataSource
import jakarta.persistence.EntityManagerFactory
import org.eclipse.jetty.ee10.servlet.ServletContextHandler
import org.eclipse.jetty.ee10.servlet.ServletHolder
import org.eclipse.jetty.server.Server
import org.eclipse.jetty.server.ServerConnector
import org.eclipse.jetty.util.ssl.SslContextFactory
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory
import org.springframework.context.annotation.AnnotationConfigApplicationContext
import org.springframework.context.annotation.Bean
import org.springframework.context.annotation.Configuration
import org.springframework.context.annotation.Import
import org.springframework.context.annotation.Primary
import org.springframework.orm.jpa.JpaTransactionManager
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean
import org.springframework.transaction.annotation.EnableTransactionManagement

@Configuration(proxyBeanMethods = false)
@EnableTransactionManagement
@Import([ThreadPoolFactoryConfig, HapiJpaConfig, JpaBatch2Config, Batch2JobsConfig, SubscriptionChannelConfig])
class Database {
    @Bean
    javax.sql.DataSource dataSource() {
        new HikariDataSource(jdbcUrl: "jdbc:h2:file:${System.getProperty('fhir.folder')}/fhir", maximumPoolSize: 16)
    }

    @Bean
    JpaStorageSettings storageSettings() {
        def settings = new JpaStorageSettings()
        settings.schedulingDisabled = true
        settings
    }

    @Bean
    PartitionSettings partitionSettings() { new PartitionSettings() }

    @Bean
    SubscriptionSettings subscriptionSettings() { new SubscriptionSettings() }

    @Primary
    @Bean
    LocalContainerEntityManagerFactoryBean entityManagerFactory(
            javax.sql.DataSource source, ConfigurableListableBeanFactory beans, FhirContext context, JpaStorageSettings settings) {
        def factory = HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, context, settings)
        factory.persistenceUnitName = 'HAPI_PU'
        factory.dataSource = source
        factory.jpaProperties = [
            'hibernate.dialect': HapiFhirH2Dialect.name, 'hibernate.hbm2ddl.auto': 'update',
            'hibernate.search.enabled': 'false', 'hibernate.jdbc.batch_size': '20'] as Properties
        factory
    }

    @Primary
    @Bean
    JpaTransactionManager transactionManager(EntityManagerFactory factory) { new JpaTransactionManager(factory) }

    @Primary
    @Bean
    HibernatePropertiesProvider hibernateProperties(LocalContainerEntityManagerFactoryBean factory) {
        new HibernatePropertiesProvider()
    }
}

@Configuration(proxyBeanMethods = false)
@Import([JpaR4Config, Database])
class R4 {}

@Configuration(proxyBeanMethods = false)
@Import([JpaR5Config, Database])
class R5 {}

System.setProperty('fhir.folder', args[2])
def beans = new AnnotationConfigApplicationContext(args[0] == 'R4' ? R4 : R5)
def context = beans.getBean(FhirContext)
def fhir = new RestfulServer(context)
fhir.registerProviders(beans.getBean(ResourceProviderFactory).createProviders())
fhir.registerProvider(beans.getBean(args[0] == 'R4' ? 'mySystemProviderR4' : 'mySystemProviderR5'))
def server = new Server()
def secured = args.length > 3
def tls = secured ? new SslContextFactory.Server(keyStorePath: args[3], keyStorePassword: args[4]) : null
def connector = secured ? new ServerConnector(server, tls) : new ServerConnector(server)
connector.host = InetAddress.loopbackAddress.hostAddress
connector.port = args[1] as int
server.addConnector(connector)
def servlets = new ServletContextHandler()
servlets.addServlet(new ServletHolder(fhir), '/fhir/*')
server.handler = servlets
server.start()
println 'ready'
System.in.read()
System.exit(0)
